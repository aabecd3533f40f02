"""Names that collide: each gets a folder of its own, or is refused before it writes anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher.jobs import demo_data
from launcher.jobs.fresh_folder import make_fresh_folder
from tests.conftest import HOME, TINY
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.stopping import Outcome
from trainer.launch import local_processes
from trainer.launch.prepared_training import prepare_training
from trainer.networks.network_settings import NetworkSettings
from trainer.runs.lease import Lease, held
from trainer.runs.lease_holder import HANDED_OVER, Owner
from trainer.runs.run_folder import RunFolder

SMALL = [*TINY, "--cluster", "local", "--total-images", "32", "--processes", "1"]


def begin(cwd: Path, *command: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_submits_of_one_second_train_in_folders_of_their_own(
    shards32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clock says: each of the names was taken by somebody else, in the very moment."""
    monkeypatch.chdir(tmp_path)
    barrier = threading.Barrier(4)

    def make(_: int) -> Path:
        barrier.wait()
        path = make_fresh_folder(Path("runs") / "dcgan-32-20260101-000000")
        (path / "config.json").touch()
        return path

    with ThreadPoolExecutor(4) as pool:
        made = {*pool.map(make, range(4))}
    assert {path.name for path in made} == {f"dcgan-32-20260101-000000{end}" for end in ("", "-2", "-3", "-4")}
    both = [begin(tmp_path, "launcher", "submit", *SMALL, "--data", str(shards32)) for _ in range(2)]
    for submitted in both:
        assert submitted.wait(timeout=120) == 0, submitted.communicate()[1]
        submitted.communicate()
    assert len([*Path("runs").glob("*/checkpoints/000000000032-r00")]) == 2


@pytest.mark.parametrize("refused", [False, True])
def test_what_trains_nothing_leaves_no_folder(refused: bool, shards32: Path, tmp_path: Path) -> None:
    settings = ("--seed", "-1") if refused else ("--dry-run",)
    submitted = begin(tmp_path, "launcher", "submit", *SMALL, "--data", str(shards32), *settings)
    submitted.communicate(timeout=120)
    assert submitted.returncode == (2 if refused else 0)
    assert not (tmp_path / "runs").exists()


def test_of_two_runs_in_one_folder_one_is_refused_before_it_writes(shards32: Path, tmp_path: Path) -> None:
    """They differ in their seed: the settings that lie there in the end are those of the one that has trained."""
    command = ["trainer", "train", *TINY, "--data", str(shards32), "--run", "run", "--total-images", "32"]
    both = [begin(tmp_path, *command, "--processes", "1", "--seed", str(seed)) for seed in (1, 2)]
    said = [one.communicate(timeout=120)[1] for one in both]
    assert sorted(one.returncode for one in both) == [0, 2], said
    winner = [one.returncode for one in both].index(0)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == winner + 1
    assert "another process trains in" in said[1 - winner] or "seed is" in said[1 - winner]
    assert "Traceback" not in "".join(said)
    assert "lease behind" not in "".join(said)


def test_a_folder_is_held_while_its_processes_begin(
    shards32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_processes(run: RunFolder, size: int, owner: Owner) -> Outcome:
        assert run.config.exists()
        with pytest.raises(Refused, match="another process trains in"), held(run, Owner("another")):
            pass
        return Outcome.FINISHED

    monkeypatch.setattr(local_processes, "run_processes", begin_processes)
    config = Config(data=shards32, network=NetworkSettings(size=32), processes=1)
    training = prepare_training(RunFolder(tmp_path / "run"), config)
    assert local_processes.train_here(training) is Outcome.FINISHED
    assert not (tmp_path / "run" / "lease.json").exists()


def test_who_holds_a_folder_hands_it_over_to_its_own_processes_only(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with held(run, Owner("mine"), HANDED_OVER):
        with pytest.raises(Refused, match="another process trains in"), held(run, Owner("another")):
            pass
        taken = Lease(run, Owner("mine"), 0, lambda *_: None)
        with pytest.raises(Refused, match="another process trains in"), held(run, Owner("another")):
            pass
    assert run.lease.exists(), "the one that handed it over takes nothing away"
    taken.release()
    assert not run.lease.exists()


def test_two_that_build_the_demo_at_once_both_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_data, "FOLDER", tmp_path / "demo")
    barrier = threading.Barrier(2)

    def build(shards: Path, options: list[str]) -> None:
        shards.mkdir()
        (shards / "index.json").touch()
        barrier.wait()

    monkeypatch.setattr(demo_data, "build_shards", build)
    with ThreadPoolExecutor(2) as pool:
        assert {*pool.map(demo_data.demo_shards, [NetworkSettings(size=32)] * 2)} == {tmp_path / "demo" / "shards-32"}
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["shards-32"]


def test_demo_data_that_is_in_the_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_data, "FOLDER", tmp_path / "demo")
    (tmp_path / "demo" / "shards-32" / ".build").mkdir(parents=True)
    monkeypatch.setattr(demo_data, "build_shards", lambda shards, size: shards.mkdir())
    with pytest.raises(Refused, match=r"shards-32 cannot be made: .*; remove what is there, or name --data"):
        demo_data.demo_shards(NetworkSettings(size=32))
