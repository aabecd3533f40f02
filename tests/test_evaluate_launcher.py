"""`launcher evaluate`: a job of its own on a real Slurm, or processes of this machine; the same figures."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.jobs.batch_script import Request
from launcher.study import array
from slurm.dev_cluster import DevCluster
from slurm.profile import Profile
from tests.evaluated_runs import blots, made_run
from tests.slurm_cluster import wait_for
from trainer.runs import journal
from trainer.runs.run_folder import RunFolder

OPTIONS = ("--metrics", "fid", "--num-samples", "300")


@pytest.fixture(scope="module")
def made(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that has learnt nothing yet."""
    return made_run(tmp_path_factory.mktemp("made") / "run", shards32, 16)


def test_two_nodes_measure_what_one_process_does(on_slurm: DevCluster, made: RunFolder, tmp_path: Path) -> None:
    """Beside whatever else the run's own job does: it has none here, and gets none."""
    alone = RunFolder(tmp_path / "alone")
    shutil.copytree(made.path, alone.path)
    assert main(["evaluate", str(alone.path), *OPTIONS, "--processes", "1", "--cluster", "local"]) == 0
    assert main(["evaluate", str(made.path), *OPTIONS, "--nodes", "2", "--time", "5"]) == 0
    (folder,) = made.logs.glob("evaluation-*")
    assert wait_for(lambda: list(journal.read_rows(made.evaluations)), 120), [
        p.read_text() for p in folder.glob("*.out")
    ]
    assert wait_for(lambda: all(job.state == "COMPLETED" for job in on_slurm.jobs() if job.name == "run-evaluate"))
    assert made.evaluations.read_bytes() == alone.evaluations.read_bytes()
    assert not made.job.exists()
    assert list((made.cache / "features").iterdir()), "features of the data lie where all nodes see them"


def test_a_dry_run_shows_the_script_and_does_nothing(
    on_slurm: DevCluster, made: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in made.path.rglob("*") if "cache" not in path.parts)
    assert main(["evaluate", str(made.path), *OPTIONS, "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert "launcher.jobs.evaluation_task evaluate" in script
    assert "trap : TERM" in script
    assert "--kill-on-bad-exit=0" in script, "the main process takes over what a rank that has ended leaves undone"
    assert sorted(path for path in made.path.rglob("*") if "cache" not in path.parts) == before


@pytest.mark.usefixtures("on_slurm")
@pytest.mark.parametrize("where", ["local", "slurm"])
def test_a_dry_run_learns_no_classifier(tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It writes nothing at all, on the login node or here."""
    run = made_run(tmp_path / "run", blots(tmp_path), 16)
    before = sorted(tmp_path.rglob("*"))
    options = ("--metrics", "is", "--extractor", "classifier", "--cache", str(tmp_path / "cache"), "--dry-run")
    assert main(["evaluate", str(run.path), *options, "--cluster", where]) == 0
    assert {"local": "is of ", "slurm": "launcher.jobs.evaluation_task"}[where] in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("measured", "code"), [(True, 0), (False, 137)])
def test_a_rank_that_is_killed_fails_no_task_whose_run_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: bool, code: int
) -> None:
    """The step of the measurement says 137 here; what counts is whether the figures are there."""
    figures, python = tmp_path / "figures", tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntest ! -e {figures}\n")  # --due
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    made = array.lines_to_measure(Request("name", "1", 2, 1, 0, 60, None, Profile()))
    step = f"case $* in *launcher.study.evaluate_run*) {f'touch {figures};' if measured else ''} return 137;; esac"
    lines = [f"patient_srun() {{ {step}; }}", *made, 'RUN=run; srun train "$RUN"']
    assert subprocess.run(["bash", "-c", "\n".join(lines)], check=False).returncode == code
    assert "--kill-on-bad-exit=0" in "\n".join(made)


def test_what_is_wrong_is_said_before_anything_is_queued(
    on_slurm: DevCluster, made: RunFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for options, message in (
        ((str(made.path), "--nodes", "9"), "partition main has 4 nodes"),
        ((str(made.path), "--checkpoint", "7"), "has no checkpoint '7'"),
        ((str(tmp_path),), "holds no run"),
    ):
        assert main(["evaluate", *options]) == 2
        assert message in capsys.readouterr().err
    assert not [job for job in on_slurm.jobs() if job.state in ("PENDING", "RUNNING")]
