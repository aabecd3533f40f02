"""What is refused before anything is queued: one line, exit code 2, nothing written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.jobs import checks
from launcher.jobs.file_systems import file_system, is_local
from launcher.jobs.job_record import JobRecord
from slurm import control
from slurm.profile import Profile
from slurm.records import Node
from tests.conftest import TINY
from tests.fake_slurm import CPU, FakeSlurm, fake_slurm, live_job
from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder

__all__ = ["fake_slurm"]

REFUSALS = {
    "another partition": (("--partition", "gpus"), "there is no partition 'gpus'; did you mean 'gpu'?"),
    "no such partition": (("--partition", "x"), "there is no partition 'x'; there are cpu, gpu, batch, closed"),
    "a closed partition": (("--partition", "closed"), "partition closed is DOWN: it takes no jobs now; see: sinfo"),
    "more nodes than there are": (("--nodes", "9"), "--nodes 9: partition cpu has 8 nodes"),
    "more nodes than a job gets": (("--nodes", "4-7"), "--nodes 4-7: a job in partition cpu gets at most 6"),
    "too long": (("--time", "3-0"), "--time 4320 minutes: partition cpu gives at most 2880; a run goes on over as"),
    "GPUs that are not there": (("--gpus-per-node", "1"), "--gpus-per-node 1: the nodes of partition cpu have none"),
    "too many GPUs": (("--partition", "gpu", "--gpus-per-node", "9"), "the nodes of partition gpu have 8"),
    "fewer than no GPUs": (("--gpus-per-node", "-1"), "--gpus-per-node must not be negative, but is -1"),
    "nodes that are no number": (("--nodes", "two"), "--nodes must be a number such as 4, or a range such as 2-4"),
    "no nodes": (("--nodes", "0"), "--nodes must be a number such as 4, or a range such as 2-4, but is '0'"),
    "a range backwards": (("--nodes", "4-2"), "--nodes must be a number such as 4, or a range such as 2-4"),
    "a time that is none": (("--time", "tomorrow"), "--time must be minutes, hours:minutes:seconds or days-hours"),
    "no time": (("--time", "0"), "--time must be at least a minute, but is '0'"),
    "a folder that Slurm cannot name": (("--run", "50%"), "Slurm cannot hold '%' or control characters in a path"),
    "a file in the way": (("--run", "file/r"), "the run folder file/r cannot be written"),
    "no key": (("--tracking.mode", "online"), "W&B is asked for online, but there is no key: set WANDB_API_KEY"),
    "a profile's misspelt setting": (("--profile", "bad.toml"), "there is no setting 'partitoin'; did you mean"),
    "no such profile": (("--profile", "moon"), "name a .toml file, or one of container, gpu-cluster"),
    "a run that was never submitted": (("--after", "nowhere"), "--after nowhere: this run was never submitted"),
    "more processes than micro-batches": (
        ("--partition", "gpu", "--keep-batch"),
        "8 processes cannot share 4 micro-batches (batch_size 32 / micro_batch_size 8)",
    ),
}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("refused: ")
    assert said.out == ""
    return lines[0]


@pytest.mark.parametrize("name", REFUSALS)
def test_what_a_cluster_cannot_give_is_refused(
    name: str,
    fake_slurm: FakeSlurm,
    shards32: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", "/nowhere")
    Path("bad.toml").write_text('partitoin = "gpu"\n')
    Path("file").touch()
    arguments, message = REFUSALS[name]
    there = sorted(Path().iterdir())
    assert message in refusal(capsys, "submit", *TINY, "--data", str(shards32), "--run", "r", *arguments)
    assert sorted(Path().iterdir()) == there, "something was written"
    assert not (fake_slurm.folder / "argv").exists(), "sbatch was asked"


def test_a_time_limit_of_a_profile_is_refused_by_its_name(
    fake_slurm: FakeSlurm, shards32: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("site.toml").write_text('time = "soon"\n')
    said = refusal(capsys, "submit", *TINY, "--data", str(shards32), "--profile", "site.toml")
    assert said.startswith("refused: time in the profile must be minutes")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING"])
def test_a_run_with_a_live_job_is_refused(
    state: str,
    fake_slurm: FakeSlurm,
    shards32: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(["submit", *TINY, "--data", str(shards32), "--run", "r"]) == 0
    capsys.readouterr()
    before = Path("r/job.json").read_bytes()
    monkeypatch.setattr(control, "show_job", lambda id: live_job(id, state))
    said = refusal(capsys, "resume", "r")
    assert f"r has job 77 already, which is {state.lower()}" in said
    assert "python -m launcher cancel r" in said
    assert Path("r/job.json").read_bytes() == before


def test_a_run_folder_that_others_cannot_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Node("c1", "10.0.0.1", "IDLE", 16, 64_000, "", "")
    here = replace(elsewhere, address="127.0.0.1")
    run = RunFolder(tmp_path / "runs" / "r")
    monkeypatch.setattr("launcher.jobs.checks.file_system", lambda path: "tmpfs")
    checks.check_run_folder(run, [here])
    with pytest.raises(Refused, match="lies on a tmpfs, which no other node sees: name a --run"):
        checks.check_run_folder(run, [here, elsewhere])
    monkeypatch.setattr("launcher.jobs.checks.file_system", lambda path: "lustre")
    checks.check_run_folder(run, [here, elsewhere])


def test_a_run_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(Refused, match=f"cannot be written: {tmp_path} does not let you"):
        checks.check_run_folder(RunFolder(tmp_path / "runs" / "r"), [])


def test_a_cluster_without_partitions_is_refused() -> None:
    with pytest.raises(Refused, match="no partition that you may use"):
        checks.choose_partition("", [])
    assert checks.choose_partition("", [replace(CPU, default=False)]).name == "cpu"


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("90", 90), ("90:30", 91), ("2:00:00", 120), ("0:00:01", 1), ("1-0", 1440), ("1-2:03", 1563), ("1-2:03:04", 1564)],
)
def test_times_are_read_as_slurm_reads_them(time: str, minutes: int) -> None:
    assert checks.parse_minutes(time) == minutes


def test_the_warning_leaves_half_of_a_short_limit_for_training() -> None:
    assert checks.limit_warning_time(Profile(warn_s=120), 60).warn_s == 120
    assert checks.limit_warning_time(Profile(warn_s=120), 2).warn_s == 60


def test_a_job_record_is_read_back(tmp_path: Path) -> None:
    record = JobRecord(7, 2, "2-4", 8, 120, "2030-01-01T00:00:00.000+00:00")
    record.save(RunFolder(tmp_path))
    assert JobRecord.load(RunFolder(tmp_path)) == record


def test_file_systems_are_told_apart() -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert not is_local("proc")


def test_a_container_must_see_the_run_folder() -> None:
    site = Profile(container="pyxis", image="x", mounts=("/shared:/shared",))
    checks.check_container_mounts(RunFolder(Path("/shared/runs/a")), site)
    checks.check_container_mounts(RunFolder(Path("/elsewhere/a")), Profile())
    with pytest.raises(Refused, match="/elsewhere/a is in none of the container's mounts"):
        checks.check_container_mounts(RunFolder(Path("/elsewhere/a")), site)
