"""Run folders that are copied, moved, linked to or mounted elsewhere: which of them lead to processes, and to which."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from launcher.cli.cancel import Cancel, run_cancel
from launcher.jobs import job_record
from launcher.status.facts import RunState
from launcher.status.run_status import gather_status
from slurm import control
from tests.conftest import fingerprint, run, trains_here
from tests.made_runs import ELSEWHERE, MadeRun, job, slurm_says
from trainer.config.groups import TrackingSettings
from trainer.core.fields import Refused
from trainer.runs.lease import Lease, LeaseTiming
from trainer.runs.lease_holder import Owner, living_holder
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tracker import Identity, identity_of


@pytest.fixture
def trained(shards32: Path, tmp_path: Path) -> Iterator[tuple[RunFolder, subprocess.Popen[str]]]:
    """A run that trains on this machine."""
    folder = RunFolder(tmp_path / "r")
    with trains_here(folder, shards32, 1) as process:
        yield folder, process


def state_of(path: Path) -> tuple[RunState, str]:
    found = json.loads(run("launcher", "status", str(path), "--json").stdout)[0]
    return RunState(found["state"]), found["reason"]


def test_a_copy_of_a_run_that_trains_is_a_run_of_its_own(
    trained: tuple[RunFolder, subprocess.Popen[str]], tmp_path: Path
) -> None:
    original, process = trained
    copy = tmp_path / "copy"
    assert subprocess.run(["cp", "-r", str(original.path), str(copy)], check=False).returncode == 0
    assert (copy / "lease.json").exists()
    assert state_of(copy) == (RunState.INTERRUPTED, f"a copy of {original.path}, made while that one trained")

    nothing = run("launcher", "cancel", str(copy))
    assert (nothing.returncode, nothing.stdout.partition(":")[0]) == (0, "nothing to cancel")
    assert state_of(original.path)[0] is RunState.TRAINING, "the original goes on"

    seen = int(max((copy / "checkpoints").glob("0*")).name.partition("-")[0]) + 256
    resumed = run("launcher", "resume", str(copy), "--cluster", "local", "--total-images", str(seen))
    assert resumed.returncode == 0, resumed.stderr
    assert process.poll() is None, "the original goes on"
    gone = run("launcher", "rm", str(copy), "--yes")
    assert (gone.returncode, process.poll()) == (0, None), gone.stderr


def test_a_folder_that_moves_while_it_trains_ends_with_where_it_is(
    trained: tuple[RunFolder, subprocess.Popen[str]], tmp_path: Path
) -> None:
    original, process = trained
    elsewhere = tmp_path / "else where"
    original.path.rename(elsewhere)
    assert process.wait(60) == 1
    assert process.stderr
    go_on = f"python -m launcher resume '{elsewhere}'"
    why = f"the run folder {original.path} was moved while it trained; go on with: {go_on}"
    assert f"{why}; this process ends" in process.stderr.read()
    assert not original.path.exists(), "nothing is written where it was"
    assert state_of(elsewhere) == (RunState.FAILED, why)

    total = int(max((elsewhere / "checkpoints").glob("0*")).name.partition("-")[0]) + 128
    here = ("--cluster", "local", "--total-images", str(total))
    done = run("launcher", "resume", str(elsewhere), *here)
    assert done.returncode == 0, done.stderr
    shutil.copytree(elsewhere, tmp_path / "again")
    for newest in sorted((tmp_path / "again" / "checkpoints").glob("0*"))[-1:]:
        shutil.rmtree(newest)
    assert run("launcher", "resume", str(tmp_path / "again"), *here).returncode == 0
    assert fingerprint(tmp_path / "again") == fingerprint(elsewhere), "the same bits wherever it lies"


def test_a_folder_that_is_removed_while_it_trains_says_so(trained: tuple[RunFolder, subprocess.Popen[str]]) -> None:
    original, process = trained
    original.path.rename(original.path.with_name("to remove"))
    shutil.rmtree(original.path.with_name("to remove"))
    assert process.wait(60) == 1
    assert process.stderr
    assert f"the run folder {original.path} was removed while it trained" in process.stderr.read()


def linked(original: Path, other: Path) -> None:
    other.symlink_to(original)


def mounted(original: Path, other: Path) -> None:
    other.mkdir()
    subprocess.run(["mount", "--bind", str(original), str(other)], check=True)


def moved(original: Path, other: Path) -> None:
    original.rename(other)


def copied(original: Path, other: Path) -> None:
    shutil.copytree(original, other)


def copied_as_hard_links(original: Path, other: Path) -> None:
    subprocess.run(["cp", "-al", str(original), str(other)], check=True)


def swapped_for_a_copy(original: Path, other: Path) -> None:
    """The original is put aside, and a copy takes its place: `other` leads to the copy."""
    original.rename(original.with_name("aside"))
    shutil.copytree(original.with_name("aside"), original)
    other.symlink_to(original)


SAME = [linked, mounted, moved]
COPIES = [copied, copied_as_hard_links, swapped_for_a_copy]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """A path by which the run is, or seems, reached; what is mounted there goes in the end."""
    path = tmp_path / "other"
    yield path
    if str(path) in Path("/proc/mounts").read_text():  # is_mount() does not tell a mount of the same file system
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize("reach", SAME)
def test_the_holder_is_known_by_any_path_to_its_folder(
    reach: Callable[[Path, Path], None], tmp_path: Path, other: Path
) -> None:
    held = Lease(RunFolder(tmp_path / "r"), Owner("a test"), 0, lambda _: None)
    reach(tmp_path / "r", other)
    assert living_holder(RunFolder(other)) == held.mine
    with pytest.raises(Refused, match="another process trains in"):
        Lease(RunFolder(other), Owner("another"), 0, lambda _: None)
    held.release()


@pytest.mark.parametrize("reach", COPIES)
def test_a_copy_is_not_held(reach: Callable[[Path, Path], None], tmp_path: Path, other: Path) -> None:
    held = Lease(RunFolder(tmp_path / "r"), Owner("a test"), 0, lambda _: None)
    reach(tmp_path / "r", other)
    assert living_holder(RunFolder(other)) is None
    held.release()


def test_a_copy_is_taken_when_its_lease_does_not_beat(tmp_path: Path) -> None:
    quick = LeaseTiming(beat_s=0.05, copy_s=0.3)
    held = Lease(RunFolder(tmp_path / "r"), Owner("a test"), 0, lambda _: None, quick)
    copied(tmp_path / "r", tmp_path / "copy")
    Lease(RunFolder(tmp_path / "copy"), Owner("another"), 0, lambda _: None, quick).release()
    copied_as_hard_links(tmp_path / "r", tmp_path / "links")
    with pytest.raises(Refused, match="another process trains in"):  # whatever is written there is written in both
        Lease(RunFolder(tmp_path / "links"), Owner("another"), 0, lambda _: None, quick)
    held.release()


def test_a_holder_whose_folder_was_swapped_for_a_copy_ends(tmp_path: Path) -> None:
    lost, quick = threading.Event(), LeaseTiming(beat_s=0.05)
    held = Lease(RunFolder(tmp_path / "r"), Owner("a test"), 0, lambda _: lost.set(), quick)
    swapped_for_a_copy(tmp_path / "r", tmp_path / "other")
    assert lost.wait(10)
    found = held.loss()
    assert found
    assert str(tmp_path / "aside") in found.why
    held.release()


@pytest.mark.parametrize("reach", [*SAME, *COPIES])
def test_a_copy_has_no_job(
    reach: Callable[[Path, Path], None],
    tmp_path: Path,
    other: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    made.began()
    made.event("start", -140, images_seen=0, owner=ELSEWHERE.owner)
    slurm_says(monkeypatch, job("RUNNING"))
    asked: list[str] = []
    monkeypatch.setattr(control, "cancel_job", lambda number: asked.append("cancel"))
    monkeypatch.setattr(control, "send_signal", lambda number, name: asked.append(name))
    monkeypatch.setattr("launcher.cli.cancel.WAIT_S", 0.1)
    monkeypatch.setattr("launcher.cli.cancel.POLL_S", 0.01)
    reach(tmp_path / "r", other)
    from launcher.jobs.runs import SlurmQueue

    state = gather_status(RunFolder(other), SlurmQueue()).state
    run_cancel(Cancel(other))
    if reach in SAME:
        assert (state, asked) == (RunState.TRAINING, ["TERM"])
    else:
        assert (state, asked) == (RunState.INTERRUPTED, [])
        assert job_record.find_record(RunFolder(other)) is None
        assert f"a copy of {tmp_path / 'r'}" in capsys.readouterr().out


def test_a_record_of_an_earlier_version_is_the_folders_own(tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    values = json.loads(made.run.job.read_text())
    made.run.job.write_text(json.dumps({k: v for k, v in values.items() if k != job_record.WRITTEN_IN}))
    assert job_record.find_record(made.run)


def test_a_copy_has_a_wandb_run_of_its_own_and_a_moved_run_keeps_its_own(tmp_path: Path) -> None:
    run, settings = RunFolder(tmp_path / "r"), TrackingSettings()
    run.path.mkdir()
    first = Identity.create(run, settings)
    first.save(run.wandb_identity)
    copied(run.path, tmp_path / "copy")
    of_copy = identity_of(RunFolder(tmp_path / "copy"), settings)
    assert of_copy.segments[0].id != first.segments[0].id
    assert of_copy.group == first.group
    assert asdict(identity_of(run, settings)) == asdict(first)
    os.rename(run.path, tmp_path / "moved")
    moved_on = identity_of(RunFolder(tmp_path / "moved"), settings)
    assert moved_on.segments == first.segments
    assert moved_on.folder == str(tmp_path / "moved")
