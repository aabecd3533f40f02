"""What a training, and whoever looks after it, advises works, done literally in a folder with a space."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests import conftest
from tests.advice import do, refusal, told
from tests.conftest import TINY, fingerprint, run
from tests.slurm_cluster import wait_for
from trainer.runs.run_folder import RunFolder


def begin(command: str, folder: RunFolder, *more: str) -> subprocess.Popen[str]:
    """Start a training, and wait until it has saved once more."""
    before = len(list(folder.checkpoints.glob("0*")))
    words = (*shlex.split(command)[2:], *more)
    process = conftest.begin(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert wait_for(lambda: len(list(folder.checkpoints.glob("0*"))) > max(before, 1), timeout_s=120)
    return process


def test_a_run_from_its_begin_to_its_end(
    shards32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command is one that the command before it has told."""
    folder = RunFolder(tmp_path / "a run")
    usual = ("--cluster", "local", "--processes", "2", "--checkpoint.keep-last", "99")
    settings = (*TINY, "--data", str(shards32), "--run", str(folder.path), "--tracking.mode", "offline")
    training = begin("python -m launcher submit", folder, *settings, *usual)
    again = shlex.join(["python", "-m", "launcher", "resume", str(folder.path), "--cluster", "local"])
    end = told(refusal(capsys, again), "end it first: ")
    assert told(refusal(capsys, f"python -m launcher rm '{folder.path}' --yes"), "end it first: ") == end
    assert do(end) == 0
    go_on = told(capsys.readouterr().out, "; go on with: ")
    said, logged = training.communicate(timeout=60)
    assert told(said, "Ctrl-C saves and stops; go on with: ") == go_on
    assert told(logged, "interrupted and saved at ").partition("; go on with: ")[2] == go_on
    watch = told(said, "watch       ").partition("; pictures in ")[0]
    assert shlex.split(watch) == ["tail", "-f", str(folder.metrics)]
    later = told(said, "; send it later with: ")

    training = begin(go_on, folder, *usual)
    children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    go_on = told(training.communicate(timeout=90)[1], "the run has stopped; go on with: ")
    seen = max(int(path.name.partition("-")[0]) for path in folder.checkpoints.glob("0*")) + 256
    done = run(*shlex.split(go_on)[2:], *usual, "--total-images", str(seen))
    assert done.returncode == 0, done.stderr
    assert fingerprint(folder.path)[0] == seen
    paint = told(done.stderr, "; sample with: ")
    monkeypatch.chdir(tmp_path)
    assert do(paint) == 0
    assert (tmp_path / "grid.png").exists()
    assert shlex.split(later)[-2:] == ["sync", str(folder.path)]
