"""How a preparation is shared out, taken together again and judged, without a cluster."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.jobs.attempts import durable_images
from launcher.jobs.own_log import StampedLines
from launcher.jobs.share_progress import ShareProgress
from launcher.prepare.arguments import parse_prepare
from launcher.prepare.balance import plan_shares
from launcher.prepare.folder import PlannedShare, Preparation, PrepareFolder
from launcher.prepare.progress import JobStatus, judge_preparation
from launcher.prepare.work import BuildWork
from launcher.status.facts import RunState
from shards import __main__ as shards_command
from shards.building import share as building
from shards.building.build import lock_folder
from shards.building.build_db import RESULTS, BuildDb
from shards.building.interruption import BuildStopped, Interruption
from shards.building.options import Build
from shards.building.phases import LISTING
from shards.building.share import OpenTask
from shards.building.share_results import Share, merge_shares
from shards.building.workers import Workers
from shards.errors import DataError
from slurm import control
from tests.advice import do, refusal, told
from tests.fake_slurm import REFUSES, TAKES_IT, FakeSlurm, fake_slurm
from tests.made_sources import build, digests, make_source
from trainer.runs.run_folder import RunFolder

__all__ = ["fake_slurm"]

SETTINGS = ("--size", "16", "--shard-samples", "8", "--holdout", "0.2")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_source(tmp_path_factory.mktemp("source"), 45)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("built") / "shards"
    build(source, out, *SETTINGS)
    return digests(out)


def arguments(source: Path, out: Path, resume: bool = False) -> Build:
    return Build((source,), out=out, size=("16",), shard_samples=8, holdout=0.2, workers=1, resume=resume)


def tasks(*sizes: int) -> list[OpenTask]:
    return [OpenTask(number, 10, size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_consecutive_and_of_nearly_equal_bytes(count: int) -> None:
    sizes = [(997 * number) % 1000 for number in range(100)]
    shares = plan_shares(tasks(*sizes), count)
    assert [number for share in shares for number in range(share.start, share.stop)] == [*range(100)]
    assert sum(share.size for share in shares) == 1000
    assert [share.bytes for share in shares] == [sum(sizes[share.start : share.stop]) for share in shares]
    assert max(share.bytes for share in shares) <= sum(sizes) / count + 1000


def test_a_giant_is_a_share_of_its_own_and_no_share_is_empty() -> None:
    assert [(share.start, share.stop) for share in plan_shares(tasks(1, 1, 1000, 1, 1), 3)] == [(0, 2), (2, 3), (3, 5)]
    assert [(share.start, share.stop) for share in plan_shares(tasks(0, 0, 0), 8)] == [(0, 1), (1, 2), (2, 3)]
    assert plan_shares([], 4) == []
    left = [task for task in tasks(5, 5, 5, 5, 5) if task.number != 1]
    assert plan_shares(left, 2)[0] == PlannedShare(0, 3, 20, 10)  # task 1 lies within, and is done already


def test_shares_that_are_killed_and_merged_twice_give_the_bytes_of_one_build(
    source: Path, built: dict[str, str], tmp_path: Path
) -> None:
    args = arguments(source, tmp_path / "out")
    listed = building.list_tasks(args, Interruption())
    assert listed
    assert (listed.total, len(listed.tasks)) == (46, 6)
    sizes = {path.stat().st_size for path in source.rglob("*.jpg")}
    assert 8 * min(sizes) <= listed.tasks[0].bytes <= 8 * max(sizes)
    (work,) = building.work_folders(args)
    shares = [Share(range(3), "1"), Share(range(3, 6), "2")]
    told: list[int] = []
    stopped = Interruption()

    def stop_after_the_first(left: int) -> None:
        told.append(left)
        stopped.signalled = len(told) > 1

    with pytest.raises(BuildStopped):
        building.build_share(args, shares[0], stopped, stop_after_the_first)
    assert told[:2] == [24, 16]
    for share in reversed(shares):
        building.build_share(args, share, Interruption(), told.append)
    assert told[-1] == 0
    before = (work / "2.share").read_bytes()
    with closing(BuildDb(work / LISTING)) as whole:
        merge_shares(whole.database, work, RESULTS)
        assert [*whole.open_ranges(8)] == []
        (work / "2.share").write_bytes(before)  # as when a merge is killed before it has removed the file
    sqlite3.connect(work / "3.share").close()  # of a job that was killed before it had made its tables
    building.finish_shares(args, Interruption())
    assert digests(tmp_path / "out") == built


def test_what_shares_have_done_a_local_build_goes_on_with(source: Path, built: dict[str, str], tmp_path: Path) -> None:
    args = arguments(source, tmp_path / "out")
    assert building.list_tasks(args, Interruption())
    (work,) = building.work_folders(args)
    building.build_share(args, Share(range(2, 5), "a"), Interruption(), lambda _: None)
    again = building.list_tasks(replace(args, resume=True), Interruption())
    assert again
    assert [task.number for task in again.tasks] == [0, 1, 5]
    building.build_share(args, Share(range(6), "b"), Interruption(), lambda _: None)
    with closing(sqlite3.connect(work / "b.share")) as share:
        assert {number for (number,) in share.execute("SELECT number FROM piece")} == {0, 1, 5}
    build(source, tmp_path / "out", *SETTINGS, "--resume")
    assert digests(tmp_path / "out") == built


def test_shares_of_several_sources_that_are_added_to_a_dataset(source: Path, tmp_path: Path) -> None:
    build(source, tmp_path / "old", *SETTINGS)
    more = [make_source(tmp_path / name, 20, 1) for name in ("more", "others")]
    command = [*map(str, more), "--out", str(tmp_path / "out"), "--add", str(tmp_path / "old")]
    args = parse_prepare(command).work
    assert isinstance(args, BuildWork)
    assert args.list_tasks(Interruption())
    for name, tasks_of in {"a": range(2), "b": range(2, 5)}.items():
        args.make_share(Share(tasks_of, name), Interruption(), lambda _: None)
    args.finish(Interruption())
    alone = ["build", *map(str, more), "--out", str(tmp_path / "alone"), "--add", str(tmp_path / "old")]
    assert shards_command.main(alone) == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


def test_shares_of_several_sizes(source: Path, built: dict[str, str], tmp_path: Path) -> None:
    args = replace(arguments(source, tmp_path / "out"), size=("16", "24x32"))
    assert building.list_tasks(args, Interruption())
    told: list[int] = []
    for name, tasks_of in {"a": range(4), "b": range(4, 6)}.items():
        building.build_share(args, Share(tasks_of, name), Interruption(), told.append)
    assert told == [32, 24, 16, 8, 0, 14, 6, 0]
    building.finish_shares(args, Interruption())
    assert digests(tmp_path / "out" / "16") == built
    build(source, tmp_path / "wide", *SETTINGS, "--size", "24x32")
    assert digests(tmp_path / "out" / "24x32") == digests(tmp_path / "wide")


def test_no_build_begins_while_a_share_is_made(source: Path, tmp_path: Path) -> None:
    args = arguments(source, tmp_path / "out")
    assert building.list_tasks(args, Interruption())
    share = Share(range(1), "1")

    def begin(left: int) -> None:
        with pytest.raises(DataError, match="another build is at work"):
            building.list_tasks(replace(args, resume=True), Interruption())
        with lock_folder(building.work_folders(args)[0], shared=True):  # as another share does
            pass

    building.build_share(args, share, Interruption(), begin)


def test_what_is_done_of_a_share_is_progress(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert durable_images(run) == 0
    ShareProgress(30, 10, 100.0, 110.0).save(run)
    assert durable_images(run) == 30
    assert ShareProgress.of(run).per_s == 2.0


def status(name: str, state: RunState, reason: str = "") -> JobStatus:
    return JobStatus(name, None, state, reason, 1, (), (), ShareProgress())


@pytest.mark.parametrize(
    ("shares", "finish", "expected"),
    [
        ("queued training", "queued", ("training", "")),
        ("finished queued", "queued", ("queued", "")),
        ("queued suspended failed", "queued", ("suspended", "share 2: failed, why; why")),
        ("finished failed", "cancelled", ("failed", "share 1: failed, why")),
        ("training failed", "queued", ("training", "share 1: failed, why")),
        ("cancelled finished", "cancelled", ("cancelled", "")),
        ("finished finished", "training", ("training", "finish: preparing")),
        ("finished finished", "refused", ("refused", "finish: refused, why")),
        ("finished finished", "finished", ("finished", "")),
        ("", "queued", ("queued", "finish: queued")),
    ],
)
def test_the_state_follows_from_those_of_the_jobs(shares: str, finish: str, expected: tuple[str, str]) -> None:
    def why(state: str) -> str:
        return "why" if state in ("failed", "refused", "suspended") else ""

    jobs = [status(f"share {n}", RunState(state), why(state)) for n, state in enumerate(shares.split())]
    assert judge_preparation(jobs, status("finish", RunState(finish), why(finish))) == expected


def test_lines_of_a_share_bear_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    stream = StampedLines(sys.stdout, "share 3")
    print("one\ntw", end="", file=stream)
    print("o", file=stream)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("Z [share 3] one")
    assert second.endswith("Z [share 3] two")
    assert len(first) == len("2026-01-01T00:00:00.000Z [share 3] one")


def test_without_slurm_it_is_a_build_here(
    source: Path,
    built: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(control, "find_cluster", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    command = ["prepare", str(source), "--out", "out", *SETTINGS, "--workers", "1", "--nodes", "8"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "no Slurm here: this machine in place of 8 nodes" in said.err
    assert "looked at 46 pictures" in said.out
    assert digests(tmp_path / "out") == built
    assert not Path("runs").exists()
    assert main(command) == 2
    assert "out is not empty" in capsys.readouterr().err
    assert main([*command, "--nodes", "0"]) == 2


def test_status_and_rm_of_a_preparation_that_no_job_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "find_cluster", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    folder = PrepareFolder(Path("runs/a"))
    folder.path.mkdir(parents=True)
    folder.save(Preparation("build", "pictures", ["src"], "/", "/out", 1, 50, 10, [PlannedShare(0, 4, 40, 100)]))
    assert main(["status", "--json"]) == 0
    ((found),) = json.loads(capsys.readouterr().out)
    assert (found["run"], found["done"], found["total"], found["live"]) == ("runs/a", 10, 50, False)
    assert main(["status"]) == 0
    assert "10 pictures" in capsys.readouterr().out
    assert main(["rm", "runs/a"]) == 2
    assert main(["rm", "runs/a", "--yes"]) == 0
    assert "what lies in /out stays" in capsys.readouterr().out
    assert not folder.path.exists()


def test_what_a_cluster_cannot_do_is_refused_before_anything_is_queued(
    fake_slurm: FakeSlurm, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("launcher.prepare.control.file_system", lambda path: "nfs4")
    command = ("python -m launcher prepare", str(source), "--out", "out", *SETTINGS, "--workers", "1")
    assert refusal(capsys, *command, "--nodes", "0").startswith("--nodes must be at least 1")
    assert do(*command, "--nodes", "3", "--dry-run") == 0
    assert "#SBATCH --cpus-per-task=16" in capsys.readouterr().out
    RunFolder(Path("runs/a")).path.mkdir(parents=True)
    Path("runs/a/config.json").touch()
    assert "holds a run that trains: name another folder" in refusal(capsys, *command, "--run", "runs/a")
    fake_slurm.answer(REFUSES)
    assert "Slurm does not take the job" in refusal(capsys, *command, "--run", "runs/b")
    assert not PrepareFolder(Path("runs/b")).record.exists()
    fake_slurm.answer(TAKES_IT)
    assert do(*command) == 2
    assert "out holds an unfinished build: go on with --resume" in capsys.readouterr().err
    assert do(*command, "--resume", "--run", "runs/b") == 0
    said = capsys.readouterr().out
    assert "46 of 46 pictures in 1 shares" in said
    assert do(told(said, "watch it with: ")) == 0
    assert "afterok:77" in fake_slurm.script
    assert "--nice" not in fake_slurm.script
    assert main(["logs", "runs/b", "--rank", "1"]) == 2
    assert "name one with --rank as well" in refusal(capsys, "python -m launcher logs runs/b --restart 0")
    assert do("python -m launcher logs runs/b --restart 0", "--rank", "0") == 2  # it has no attempt yet


def test_places_that_other_nodes_do_not_see(
    fake_slurm: FakeSlurm, source: Path, built: dict[str, str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    url = ("--out", f"memory://{Path.cwd().name}/set")
    monkeypatch.setattr("launcher.prepare.control.file_system", lambda path: "nfs4")
    assert do("python -m launcher prepare", str(source / "notes.txt"), *url) == 2
    assert "is not an archive" in capsys.readouterr().err
    monkeypatch.setattr("launcher.prepare.control.file_system", lambda path: "tmpfs")
    command = ("python -m launcher prepare", str(source), "--out", "out", *SETTINGS, "--workers", "1")
    said = refusal(capsys, *command)
    assert said.startswith(f"{source} lies on a tmpfs, which no other node sees")
    assert not Path("runs").exists()
    assert do(*command, "--cluster", "local") == 0
    assert digests(Path("out")) == built
    assert do(*command, "--cluster", "local", "--resume") == 0


def test_a_listing_that_is_interrupted_goes_on(
    fake_slurm: FakeSlurm, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("launcher.prepare.control.file_system", lambda path: "nfs4")
    command = ("python -m launcher prepare", str(source), "--out", "out", *SETTINGS)

    def interrupt(*_: object) -> None:
        raise BuildStopped("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(building, "list_source", interrupt)
        assert do(*command) == 75
    assert "launcher prepare: interrupted; nothing is queued, and --resume goes on" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert do(*command, "--resume") == 0
    assert "submitted jobs 77" in capsys.readouterr().out


def test_cancel_while_slurm_is_away(
    fake_slurm: FakeSlurm, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("launcher.prepare.control.file_system", lambda path: "nfs4")
    assert do("python -m launcher prepare", str(source), "--out", "out", *SETTINGS) == 0

    def away(id: str) -> None:
        raise control.SlurmError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(control, "show_job", away)
        assert refusal(capsys, "python -m launcher cancel runs/out").endswith("nothing is cancelled: try again")
    assert do("python -m launcher cancel runs/out") == 0
    assert "nothing to cancel: runs/out is lost" in capsys.readouterr().out


@dataclass(frozen=True)
class BlockedSignals:
    """Work that tells which signals its process holds back."""

    def run(self, task: str, on_picture: Callable[[int], None]) -> list[int]:
        return [*signal.pthread_sigmask(signal.SIG_BLOCK, [])]

    def name_of(self, task: str, number: int) -> str | None:
        return None

    def clean_up(self, task: str, pid: int) -> None:
        """Do nothing."""


def test_workers_leave_what_slurm_sends_to_their_parent() -> None:
    """Else the warning before a preemption would end them, and their picture would be blamed."""
    with Workers(1, BlockedSignals()) as pool:
        ((_, blocked),) = pool.run(iter(["task"]), lambda _: None)
    assert isinstance(blocked, list)
    assert {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2} <= {*blocked}
