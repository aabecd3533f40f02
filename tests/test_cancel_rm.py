"""`launcher cancel` and `launcher rm`, without a cluster and on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.cli.cancel import Cancel, run_cancel
from launcher.cli.remove import Rm, run_rm
from launcher.jobs import runs
from launcher.jobs.attempts import Cause, Decision
from launcher.jobs.job_record import JobRecord
from slurm import control
from slurm.records import SlurmJob
from tests.conftest import fingerprint, run, trains_here
from tests.fake_slurm import live_job
from tests.made_runs import ELSEWHERE, JOB, MadeRun, job, slurm_says
from trainer.core.fields import Refused
from trainer.runs import lease_holder
from trainer.runs.lease_holder import THIS_MACHINE, Holder, Owner
from trainer.runs.run_folder import RunFolder


@pytest.fixture
def trained(shards32: Path, tmp_path: Path) -> Iterator[tuple[RunFolder, subprocess.Popen[str]]]:
    """A run that trains on this machine with two processes."""
    folder = RunFolder(tmp_path / "r")
    with trains_here(folder, shards32, 2) as process:
        yield folder, process


def test_a_run_on_this_machine_saves_and_ends(trained: tuple[RunFolder, subprocess.Popen[str]]) -> None:
    folder, process = trained
    refused = run("launcher", "rm", str(folder.path), "--yes")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"refused: {folder.path} is training, by a run on this machine")
    done = run("launcher", "cancel", str(folder.path))
    assert done.returncode == 0, done.stderr
    assert process.wait(60) == 75
    assert process.stderr
    said = process.stderr.read()
    seen, _ = fingerprint(folder.path)
    assert f"interrupted and saved at {seen:,} images" in said
    assert (
        f"the state at {seen:,} images is durable; go on with: python -m launcher resume {folder.path}" in done.stdout
    )
    again = run("launcher", "cancel", str(folder.path))
    assert (again.returncode, again.stdout) == (
        0,
        f"nothing to cancel: {folder.path} is interrupted (asked by SIGTERM)\n",
    )
    gone = run("launcher", "rm", str(folder.path), "--yes")
    assert (gone.returncode, gone.stdout.splitlines()[-1]) == (0, "removed"), gone.stderr
    assert not folder.path.exists()


def test_now_does_not_wait_for_a_save(trained: tuple[RunFolder, subprocess.Popen[str]]) -> None:
    folder, process = trained
    done = run("launcher", "cancel", str(folder.path), "--now")
    assert done.returncode == 0, done.stderr
    assert process.wait(60) in (130, 75), "75: the second signal came after the save"
    assert "is durable" in done.stdout
    assert lease_holder.living_holder(folder) is None


class FakeSlurm:
    """A job that ends when it is asked to, and what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: SlurmJob | None) -> None:
        self.answers, self.asked = [*answers], list[str]()
        slurm_says(monkeypatch, None)
        monkeypatch.setattr(
            control, "show_job", lambda number: self.answers.pop(0) if self.answers[1:] else self.answers[0]
        )
        monkeypatch.setattr(control, "cancel_job", lambda number: self.asked.append(f"cancel {number}"))
        monkeypatch.setattr(control, "send_signal", lambda number, name: self.asked.append(f"{name} {number}"))
        monkeypatch.setattr("launcher.cli.cancel.POLL_S", 0.01)
        monkeypatch.setattr("launcher.cli.cancel.AGAIN_S", 0.02)


def test_a_running_job_is_asked_to_save_and_marked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    made.began()
    slurm = FakeSlurm(monkeypatch, job("RUNNING"), job("RUNNING"), job("COMPLETING"), None)

    def signalled(number: int, name: str) -> None:
        assert JobRecord.load(made.run).cancelled, "a job that is not marked would be started again"
        slurm.asked.append(f"{name} {number}")

    monkeypatch.setattr(control, "send_signal", signalled)
    assert run_cancel(Cancel(made.folder)) == 0
    assert slurm.asked == [f"TERM {JOB}"]


def test_a_job_that_has_nobody_to_hear_yet_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    slurm = FakeSlurm(monkeypatch, *[job("RUNNING")] * 12, job("PENDING"), *[job("PENDING")] * 5, None)
    assert run_cancel(Cancel(made.folder)) == 0
    assert slurm.asked[:2] == [f"TERM {JOB}"] * 2
    assert slurm.asked[-1] == f"cancel {JOB}", "it was requeued a moment before, and waits"


@pytest.mark.parametrize(("now", "state"), [(False, "PENDING"), (True, "RUNNING")])
def test_what_waits_or_must_end_now_is_cancelled(
    now: bool, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    made.checkpoint(128)
    slurm = FakeSlurm(monkeypatch, job(state), job(state), job("CANCELLED"))
    assert run_cancel(Cancel(made.folder, now=now)) == 0
    assert slurm.asked == [f"cancel {JOB}"]
    assert JobRecord.load(made.run).cancelled
    assert "cancelled: the state at 128 images is durable" in capsys.readouterr().out


def test_a_job_that_does_not_end_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    FakeSlurm(monkeypatch, job("RUNNING"))
    monkeypatch.setattr("launcher.cli.cancel.WAIT_S", 0.1)
    assert run_cancel(Cancel(made.folder)) == 1
    assert f"job {JOB} still goes on after 0 s; --now ends it without a save" in capsys.readouterr().out


def test_without_slurms_answer_it_is_marked_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    made.began()
    slurm_says(monkeypatch, "no answer within 30 s")
    with pytest.raises(Refused, match=r"no answer within 30 s; .* is marked as cancelled"):
        run_cancel(Cancel(made.folder))
    assert JobRecord.load(made.run).cancelled


def test_what_trains_elsewhere_is_not_ended_from_here(tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "r")
    made.holds(replace(ELSEWHERE, owner=THIS_MACHINE))
    with pytest.raises(Refused, match="is trained on n7, by process 77: cancel it there"):
        run_cancel(Cancel(made.folder))


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUE_HOLD", "SUSPENDED"])
def test_a_run_with_a_job_is_not_removed(state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    slurm_says(monkeypatch, job(state))
    with pytest.raises(Refused, match=rf"has job {JOB}, which is .*launcher cancel"):
        run_rm(Rm(made.folder, yes=True))
    assert made.run.config.exists()


def test_a_run_whose_job_cannot_be_asked_for_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    slurm_says(monkeypatch, "no answer")
    with pytest.raises(Refused, match="cannot be told"):
        run_rm(Rm(made.folder, yes=True))
    slurm_says(monkeypatch, None, found=False)
    assert run_rm(Rm(made.folder, yes=True)) == 0, "no Slurm is here any more, and nobody holds the lease"


def test_a_run_that_another_process_holds_is_not_removed(tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "r")
    made.holds(Holder.this_process(THIS_MACHINE, 0, made.folder))
    with pytest.raises(Refused, match="is starting, by a run on this machine"):
        run_rm(Rm(made.folder, yes=True))


def test_what_a_dead_job_has_left_goes_without_following_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    made.ended(made.began(), Cause.FINISHED, Decision.END)
    made.checkpoint(128)
    made.holds(Holder(Owner.slurm_job(12), 0, "here", lease_holder.boot_id(), 2**22 + 1, 0, "token"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x" * 1000)
    (made.folder / "folder").symlink_to(outside)
    (made.folder / "file").symlink_to(outside / "precious")
    (made.folder / "nowhere").symlink_to(tmp_path / "nowhere")
    slurm_says(monkeypatch, None)
    assert run_rm(Rm(made.folder, yes=True)) == 0
    assert "128 images seen, 1 checkpoints" in capsys.readouterr().out
    assert not made.folder.exists()
    assert (outside / "precious").exists()


def test_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = MadeRun(tmp_path / "r")
    with pytest.raises(Refused, match="only with --yes"):
        run_rm(Rm(made.folder))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "no")
    assert run_rm(Rm(made.folder)) == 1
    assert "nothing is removed" in capsys.readouterr().out
    assert made.run.config.exists()
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert run_rm(Rm(made.folder)) == 0
    assert not made.folder.exists()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for command in ("rm", "cancel", "logs"):
        done = run("launcher", command, str(tmp_path / "photos"))
        assert (done.returncode, done.stderr) == (
            2,
            f"refused: {tmp_path / 'photos'} holds no run: there is no config.json in it\n",
        )
    link = tmp_path / "link"
    link.symlink_to(MadeRun(tmp_path / "r").folder)
    with pytest.raises(Refused, match="is a link"):
        run_rm(Rm(link, yes=True))


def test_what_cannot_be_removed_is_told_of(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file system is mounted inside the run: its folder cannot go."""
    made = MadeRun(small_disk.parent / "r")
    made.checkpoint(128)
    inside = made.folder / "disk"
    inside.mkdir()
    subprocess.run(["mount", "--bind", str(small_disk), str(inside)], check=True)
    try:
        assert run_rm(Rm(made.folder, yes=True)) == 1
        assert f"1 files or folders are left; the first: {inside}" in capsys.readouterr().err
        assert made.run.config.exists(), "what is left is no run any more, and cannot be removed by the same command"
    finally:
        subprocess.run(["umount", "--lazy", str(inside)], check=True)
    assert run_rm(Rm(made.folder, yes=True)) == 0


def test_a_folder_of_something_else_is_not_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Many programs keep a config.json."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text('{"auths": {}}')
    assert main(["rm", str(tmp_path / "docker"), "--yes"]) == 2
    assert "has not the settings of one" in capsys.readouterr().err
    assert (tmp_path / "docker" / "config.json").exists()


def test_the_current_folder_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeRun(tmp_path / "r")
    monkeypatch.chdir(made.folder)
    assert main(["rm", ".", "--yes"]) == 0
    assert not made.folder.exists()


def test_another_job_of_the_same_number_is_not_this_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers begin anew with a new cluster."""
    theirs = replace(live_job(12), comment="lienzo-theirs")
    monkeypatch.setattr(control, "show_job", lambda number: theirs)
    record = JobRecord(12, 1, "2", 1, 120, "", token="ours")
    assert runs.job_of(record) is None
    assert runs.job_of(replace(record, token="theirs")) == theirs
    assert runs.job_of(replace(record, job=0)) is None, "scontrol takes 0 for any job"
