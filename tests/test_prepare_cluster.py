"""`launcher prepare` on a real Slurm gives the bytes of a build on one machine, whatever happens to its jobs."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.jobs.runs import SlurmQueue
from launcher.prepare.folder import PrepareFolder
from launcher.prepare.progress import PrepareStatus, gather_preparation, is_over
from launcher.status.facts import RunState
from shards.__main__ import main as shards
from slurm.dev_cluster import DevCluster
from tests.advice import do, refusal, told
from tests.conftest import HOME
from tests.made_sources import add, digests
from tests.s3_server import serve_bucket
from tests.slurm_cluster import wait_for

PICTURES = 200
# Slow enough to be interrupted; 25 tasks.
SETTINGS = ("--size", "64", "--encode", "webp", "--shard-samples", "8", "--holdout", "0.1", "--workers", "1")


@pytest.fixture(scope="module")
def art(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the bundled pictures."""
    path = tmp_path_factory.mktemp("art") / "art.zip"
    with zipfile.ZipFile(HOME / "examples" / "clipart.zip") as bundled, zipfile.ZipFile(path, "w") as chosen:
        names = [name for name in bundled.namelist() if name.endswith(".png")][:PICTURES]
        for name in names:
            chosen.writestr(zipfile.ZipInfo(name), bundled.read(name))
    return path


@pytest.fixture(scope="module")
def built(art: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of the files of a build that nothing disturbs, on this machine."""
    out = tmp_path_factory.mktemp("built") / "shards"
    assert shards(["build", str(art), "--out", str(out), *SETTINGS[:-1], "2"]) == 0
    return digests(out)


@pytest.fixture
def here(on_slurm: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to stand in, and the cluster; on a failure, what the jobs have said is told."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for log in sorted(tmp_path.glob("runs/**/*.*")):
        if log.suffix in (".log", ".out", ".jsonl"):
            print(f"--- {log}\n{log.read_text(errors='replace')[-2000:]}")


def looked_at(name: str) -> PrepareStatus:
    return gather_preparation(PrepareFolder(Path("runs") / name), SlurmQueue())


def wait_until(name: str, look: Callable[[PrepareStatus], bool]) -> PrepareStatus:
    assert wait_for(lambda: look(looked_at(name)), timeout_s=90), looked_at(name)
    return looked_at(name)


def preempt(cluster: DevCluster) -> None:
    """Let a job of higher priority take all nodes for a moment."""
    command = ["sbatch", "--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(command, check=True, capture_output=True)


def test_preempted_shares_give_the_bytes_of_a_local_build(
    on_slurm: DevCluster, here: Path, art: Path, built: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(art), "--out", "out", *SETTINGS, "--nodes", "3"]) == 0
    assert "200 of 200 pictures in 3 shares" in capsys.readouterr().out
    wait_until("out", lambda status: sum(share.progress.done >= 8 for share in status.shares) > 1)
    preempt(on_slurm)
    assert main(["logs", "runs/out", "-f"]) == 0
    said = capsys.readouterr()
    assert "[share 1] interrupted by SIGTERM" in said.out
    assert "[finish] looked at 0 pictures" in said.out
    assert "── finished" in said.err
    assert main(["status", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["state"], found["done"], found["total"]) == ("finished", 200, 200)
    assert "preempted" in [cause for job in found["jobs"] for cause in job["causes"]]
    shares = looked_at("out").shares
    assert sum(share.progress.done for share in shares) == 200
    assert max(share.planned.bytes for share in shares if share.planned) < 1.2 * art.stat().st_size / 3
    assert digests(Path("out")) == built


def test_refused_then_cancelled_then_resumed_on_other_nodes_to_a_bucket(
    here: Path,
    art: Path,
    built: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(art, "art.zip")
    with serve_bucket(tmp_path_factory.mktemp("s3") / "buckets") as bucket:
        bucket.use(monkeypatch)
        assert main(["prepare", "art.zip", "--out", f"{bucket.url}/set", *SETTINGS, "--nodes", "2"]) == 0
        Path("art.zip").rename("moved.zip")
        capsys.readouterr()
        status = wait_until("set", lambda status: is_over(status) and not status.finish.state.live)
        assert (status.state, status.finish.state) == (RunState.REFUSED, RunState.CANCELLED)
        assert status.reason.startswith("share 0: refused, art.zip does not exist")
        assert main(["status", "runs/set"]) == 0
        shown = capsys.readouterr().out
        Path("moved.zip").rename("art.zip")
        assert do(told(shown, "next ").strip()) == 0
        wait_until("set", lambda status: all(share.progress.done >= 8 for share in status.shares))
        capsys.readouterr()
        said = refusal(capsys, "python -m launcher resume runs/set")
        assert "runs/set has jobs that wait or run" in said
        assert do(told(said, "watch them with `").partition("`")[0]) == 0
        said = refusal(capsys, "python -m launcher rm runs/set --yes")
        assert do(told(said, "end it first: ")) == 0
        assert looked_at("set").state is RunState.CANCELLED
        assert 16 <= looked_at("set").done < 200
        assert do(told(capsys.readouterr().out, "go on with: "), "--nodes", "3") == 0
        assert len(looked_at("set").shares) == 3
        assert looked_at("set").preparation.done_before >= 16
        wait_until("set", is_over)
        assert looked_at("set").state is RunState.FINISHED, looked_at("set")
        assert digests(bucket.root / "set") == built
        assert not [*Path("runs/set/work").iterdir()]
        assert main(["rm", "runs/set", "--yes"]) == 0


def test_tars_are_indexed_as_on_one_machine(
    here: Path, art: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    tars = tmp_path_factory.mktemp("tars")
    with zipfile.ZipFile(art) as pictures:
        names = pictures.namelist()
        for number in range(5):
            with tarfile.open(tars / f"{number}.tar", "w") as archive:
                for sample, name in enumerate(names[number::5]):
                    add(archive, f"{sample:04d}.png", pictures.read(name))
    command = [str(tars), "--size", "32", "--holdout", "0.1", "--workers", "1"]
    assert shards(["index", *command, "--out", "local"]) == 0
    assert main(["prepare", "index", *command, "--out", "out", "--nodes", "2"]) == 0
    assert do(told(capsys.readouterr().out, "watch it with: ")) == 0
    wait_until("out", is_over)
    status = looked_at("out")
    assert (status.state, status.done, len(status.shares)) == (RunState.FINISHED, 5, 2), status
    assert digests(Path("out")) == digests(Path("local"))
