"""The job that Slurm is given, for clusters that no machine here can show; beside it a golden script each.

When a script is meant to change: remove its golden file, run the test (it writes what is new, and fails), look, commit.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.jobs import attempts, checks
from launcher.jobs.job_record import JobRecord
from launcher.jobs.preparation import prepare_job
from launcher.jobs.resource_request import ResourceRequest
from launcher.jobs.submission import batch_script
from slurm.dev_cluster import DevCluster
from tests.conftest import TINY
from tests.fake_slurm import REFUSES, TAKES_IT, FakeSlurm, fake_slurm
from tests.secrets import CANARY, SECRETS
from tests.slurm_cluster import wait_for
from tests.test_launcher import launch
from trainer.config.config import Config
from trainer.runs.run_folder import RunFolder

__all__ = ["fake_slurm"]

GOLDEN = Path(__file__).parent / "golden"
CONFIG = replace(Config(), batch_size=256, micro_batch_size=32)  # eight micro-batches
APPTAINER = """\
partition = "batch"
container = "apptainer"
image = "/shared/images/lienzo.sif"
mounts = ["/shared:/shared", "/my data:/data"]
python = "python3"
"""
QUOTING = """\
account = "art & science"
environment = ["GREETING=it's $HOME and \\"more\\"", "EMPTY=", "EQUATION=a=b"]
setup = ["echo \\"setup runs as it is: $SLURM_JOB_ID\\""]
srun = ["--comment=two words"]
memory_gb = 48
warn_s = 90
"""
# name: what is asked for, the run folder, the profile's text
CASES: dict[str, tuple[ResourceRequest, str, str]] = {
    "gpus": (ResourceRequest(nodes="4", profile="gpu-cluster"), "run", ""),
    "some-gpus": (
        ResourceRequest(partition="gpu", gpus_per_node=2, time="90"),
        "run",
        "memory_gb = 100\nexclusive = false\n",
    ),
    "pyxis": (ResourceRequest(nodes="2", profile="container"), "run", ""),
    "apptainer": (ResourceRequest(nodes="2"), "run", APPTAINER),
    "range": (ResourceRequest(nodes="2-4", time="1-0"), "run", ""),
    "after": (ResourceRequest(after=Path("before"), name="second"), "run", ""),
    "cores": (ResourceRequest(nodes="2", partition="cpu", time="00:02:00"), "run", ""),
    "quoting": (ResourceRequest(), "my runs/it's $5", QUOTING),
}


def asked(case: str) -> tuple[RunFolder, ResourceRequest]:
    """The run and what is asked for of a case; its files are written."""
    resources, folder, profile = CASES[case]
    if profile:
        Path("site.toml").write_text(profile)
        resources = replace(resources, profile="site.toml")
    if resources.after:
        resources.after.mkdir()
        JobRecord(41, 1, "1", 1, 120, "").save(RunFolder(resources.after))
    return RunFolder(Path(folder)), resources


@pytest.mark.parametrize("case", CASES)
def test_the_script_is_the_golden_one(case: str, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "check_container_mounts", lambda run, site: None)  # no test runs below /shared
    run, resources = asked(case)
    script = batch_script(run, prepare_job(run, CONFIG, resources))
    syntax = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert syntax.returncode == 0, syntax.stderr
    script = script.replace(sys.executable, "PYTHON").replace(str(Path.cwd()), "/HERE")
    golden = GOLDEN / f"{case}.sh"
    if not golden.exists():
        golden.write_text(script)
        pytest.fail(f"{golden} is new: look at it")
    assert script == golden.read_text()


def test_every_golden_script_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.sh")} == set(CASES)


def test_values_arrive_as_they_were_written(fake_slurm: FakeSlurm) -> None:
    """Run the lines before the traps, and ask bash for its variables and its folder."""
    run, resources = asked("quoting")
    script = batch_script(run, prepare_job(run, CONFIG, resources)).partition("# The ranks answer")[0]
    (run.code / "0001").mkdir(parents=True)
    show = "\n".join(f'printf "%s\\0" "${name}"' for name in ("GREETING", "EMPTY", "EQUATION", "PYTHONPATH", "PWD"))
    done = subprocess.run(
        ["bash", "-c", script + show],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"SLURM_JOB_ID": "5"},
    )
    said, _, values = done.stdout.partition("\n")
    code = str((run.code / "0001").resolve())
    assert said == "setup runs as it is: 5"
    assert values.split("\0")[:-1] == ['it\'s $HOME and "more"', "", "a=b", code, code]
    text = batch_script(run, prepare_job(run, CONFIG, resources))
    arguments = shlex.split(next(line for line in text.splitlines() if line.startswith("srun --")))
    assert arguments[-1] == str(run.path.resolve())
    assert "--comment=two words" in arguments


def submit(data: Path, *more: str) -> int:
    return main(["submit", *TINY, "--data", str(data), "--run", "r", *more])


def test_submit_queues_a_copy_of_the_code(
    fake_slurm: FakeSlurm, shards32: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(shards32, "--nodes", "2") == 0
    said = capsys.readouterr().out
    assert "Slurm partition cpu, 2 nodes with 2 processes each, 24 h 00 min an attempt" in said
    assert said.endswith("submitted job 77; W&B: off\n")
    assert len(fake_slurm.argv) == 1
    assert "#SBATCH --nodes=2\n" in fake_slurm.script
    run = RunFolder(Path("r"))
    record = JobRecord.load(run)
    assert (record.job, record.submission, record.nodes, record.tasks_per_node) == (77, 1, "2", 2)
    code = run.code / "0001"
    assert f"cd {code.resolve()} || exit 1" in fake_slurm.script
    assert (code / "launcher" / "jobs" / "rank.py").exists()
    assert (code / "slurm" / "profiles" / "container.toml").exists()
    assert not list(code.rglob("__pycache__"))
    assert json.loads((code / "origin.json").read_text())["from"] == str(Path(__file__).parent.parent)
    assert (run.logs / "slurm" / "77_submission.sh").read_text() == fake_slurm.script


def test_no_secret_reaches_the_job_by_us(
    fake_slurm: FakeSlurm, shards32: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in the batch script, which Slurm shows to others, nor in a command line, which `ps` does, nor in a file."""
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
    assert submit(shards32, "--nodes", "2") == 0
    assert CANARY not in "".join((*capsys.readouterr(), fake_slurm.script, *map(str, fake_slurm.argv)))
    files = [path for path in Path("r").rglob("*") if path.is_file()]
    assert Path("r/job.json") in files
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_what_sbatch_refuses_leaves_the_record_as_it_was(
    fake_slurm: FakeSlurm, shards32: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_slurm.answer(REFUSES)
    assert submit(shards32) == 2
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "refused: Slurm does not take the job: sbatch: error: Batch job submission failed: Invalid account or qos"
    ]
    assert not Path("r/job.json").exists()
    fake_slurm.answer(TAKES_IT)
    assert submit(shards32) == 0
    before = Path("r/job.json").read_bytes()
    fake_slurm.answer(REFUSES)
    assert main(["resume", "r"]) == 2
    assert Path("r/job.json").read_bytes() == before
    fake_slurm.answer(TAKES_IT)
    assert main(["resume", "r"]) == 0
    assert JobRecord.load(RunFolder(Path("r"))).submission == 2
    assert (Path("r") / "code" / "0001").is_dir(), "the code of a job that may still run was removed"


def test_an_answer_without_a_number_is_refused(
    fake_slurm: FakeSlurm, shards32: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_slurm.answer("echo Thank you")
    assert submit(shards32) == 2
    assert "Thank you" in capsys.readouterr().err
    assert not Path("r/job.json").exists()


def test_two_ranks_a_node_train_in_a_folder_with_odd_letters(
    on_slurm: DevCluster, shards32: Path, tmp_path: Path
) -> None:
    """Slurm starts several ranks a node only if the script has asked for their cores."""
    settings = (*TINY, "--data", str(shards32), "--total-images", "64", "--run", "it's $5")
    done = launch(tmp_path, "submit", *settings, "--nodes", "1-2")
    assert done.returncode == 0, done.stderr
    assert "1-2 nodes with 2 processes each" in done.stdout
    run = RunFolder(tmp_path / "it's $5")
    going = ("PENDING", "RUNNING", "COMPLETING")
    job = wait_for(lambda: [j for j in on_slurm.jobs() if j.state not in going], timeout_s=120)
    logs = "\n".join(path.read_text() for path in sorted(run.logs.rglob("*.*")))
    assert [j.state for j in job] == ["COMPLETED"], logs
    assert [start.cause for start in attempts.read_attempts(run)] == ["finished"]
    assert len(list(run.logs.glob("*-0/rank-*.log"))) == 4
