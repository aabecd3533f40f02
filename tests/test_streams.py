"""Standard streams that are closed, full or gone: quiet and harmless, whatever the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line.streams import UNWRITTEN
from tests.conftest import HOME, TINY, fingerprint, train

COMMANDS = {
    "help of shards": "shards build --help",
    "help of trainer": "trainer --help",
    "help of launcher": "launcher --help",
    "help of submit": "launcher submit --help",
    "help of slurm": "slurm up --help",
    "inspect": "shards inspect {data}",
    "fingerprint": "trainer fingerprint {run}",
    "status": "launcher status {run}",
    "plan": "launcher submit dcgan-32 --data {data} --cluster local --dry-run",
}


@pytest.fixture(scope="module")
def finished(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(folder, shards32, "--total-images", "32")
    return folder


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line in bash; PIPESTATUS of its first command is the exit code."""
    environment = os.environ | {"PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}
    script = f"{line}\nexit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", script], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_output_that_nobody_takes_is_no_error(name: str, finished: Path, shards32: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m {COMMANDS[name].format(run=finished, data=shards32)}"
    for line in (f"{command} | head -c 1", f"{command} >&- 2>&-"):
        done = shell(line, tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), line


@pytest.mark.parametrize("name", ["help of slurm", "fingerprint", "plan"])
def test_output_that_a_full_disk_does_not_take_is_told_by_the_exit_code(
    name: str, finished: Path, shards32: Path, tmp_path: Path
) -> None:
    command = f"{sys.executable} -m {COMMANDS[name].format(run=finished, data=shards32)}"
    done = shell(f"{command} > /dev/full", tmp_path)
    assert done.returncode == UNWRITTEN
    assert done.stderr == "standard output could not be written: No space left on device\n"
    assert shell(f"{command} > /dev/full 2> /dev/full", tmp_path).returncode == UNWRITTEN


@pytest.mark.parametrize("streams", ["> /dev/full 2> /dev/full", ">&- 2>&- <&-", "2>&1 | true"])
def test_a_training_goes_on_without_its_streams(streams: str, finished: Path, shards32: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "train", *TINY, "--run", "run", "--data", str(shards32)]
    done = shell(" ".join([*command, "--processes", "2", "--total-images", "32", streams]), tmp_path)
    assert done.returncode == 0
    assert fingerprint(tmp_path / "run") == fingerprint(finished)


@pytest.mark.parametrize("streams", ["> /dev/full 2> /dev/full", ">&- 2>&-"])
def test_a_build_goes_on_without_its_streams(streams: str, shards32: Path, tmp_path: Path) -> None:
    build = f"{sys.executable} -m shards build {HOME}/examples/clipart.zip --out out --size 32 --shard-samples 100"
    done = shell(f"{build} {streams}", tmp_path)
    assert done.returncode == (UNWRITTEN if "full" in streams else 0)
    for file in shards32.iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_a_refusal_keeps_its_exit_code(tmp_path: Path) -> None:
    for streams in ("2> /dev/full", "2>&-", "> /dev/full 2>&1"):
        assert shell(f"{sys.executable} -m trainer fingerprint nowhere {streams}", tmp_path).returncode == 2


def test_what_ascii_cannot_say_is_written_otherwise(finished: Path, tmp_path: Path) -> None:
    done = shell(f"PYTHONIOENCODING=ascii {sys.executable} -m launcher status {finished}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
