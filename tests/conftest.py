"""Real shards, and real runs of the commands, for all tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from command_line.loading import loading
from tests.browser import browser
from tests.command_server import CommandServer
from tests.made_competition import competition
from tests.made_generators import blot_shards, generators
from tests.slurm_cluster import dev_cluster, on_slurm, wait_for
from trainer.networks import stylegan3
from trainer.runs.run_folder import RunFolder

# Fixtures: one of each for all tests.
__all__ = ["blot_shards", "browser", "competition", "dev_cluster", "generators", "on_slurm"]

HOME = Path(__file__).parent.parent

# A run small enough to repeat often, with everything in it: BatchNorm in both networks, four micro-batches, EMA.
TINY = [
    "dcgan-32",
    *("--network.g-channels", "8", "--network.d-channels", "8", "--network.z-dim", "16"),
    *("--batch-size", "32", "--micro-batch-size", "8", "--flip"),
    *("--log-every-images", "32", "--tracking.mode", "disabled"),
    *("--sample-every-images", "0", "--checkpoint-every-images", "128"),
]

# What shares the cluster of four nodes, and what can be dealt out test by test.
ON_CLUSTER = {file.name for file in Path(__file__).parent.glob("test_*.py") if "DevCluster" in file.read_text()}
ONE_BY_ONE = {"test_zoo_bits.py"}


def pytest_configure(config: pytest.Config) -> None:
    """One thread, as in training: the number changes bits."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of a thousand starts compiles all modules again
    torch.set_num_threads(1)
    settings.register_profile("lienzo", deadline=None)  # machines are noisy, and no test is about time
    settings.load_profile("lienzo")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import the tests as commands load their modules."""
    with loading():
        return (yield)


def pytest_unconfigure() -> None:
    """End what the tests of this process have shared."""
    if command_server.cache_info().currsize:
        command_server().close()


@pytest.hookimpl(tryfirst=True)  # before fixtures start processes
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Signals as a shell in front of a person gives them.

    What a test starts inherits what is ignored or held back here. `nohup` and services ignore some signals; so does
    what starts a group of processes at its end, and a test before this one may have called it in this process.
    """
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: while a test waits, for Slurm or for time to pass, no core is idle."""
    return len(os.sched_getaffinity(0)) + 1


class Dealer(LoadScopeScheduling):  # type: ignore[misc]  # it comes without types
    """Deals files out to the workers, each to one because of its fixtures; those on the cluster are like one file."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0]).name
        if file in ONE_BY_ONE:
            return nodeid
        return "cluster" if file in ON_CLUSTER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Dealer:
    """Tell pytest-xdist how to share the tests."""
    return Dealer(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; what can be dealt out one by one fills the gaps at the end."""
    items.sort(key=lambda item: (item.path.name not in ON_CLUSTER, item.path.name in ONE_BY_ONE))


@cache
def command_server() -> CommandServer:
    """Return this worker's server, which ends with it."""
    return CommandServer()


def run(
    *command: str, timeout: float = 240, folder: Path = HOME, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a module of ours, as a user would, and return what it said."""
    return command_server().run(command, folder, os.environ | environment, timeout)


def begin(*command: str, folder: Path = HOME, **streams: Any) -> subprocess.Popen[str]:
    """Start a module of ours, as a user would; `streams` are those of Popen."""
    return command_server().begin(command, folder, os.environ, **streams)


def train(folder: Path, data: Path, *settings: str, processes: int = 1, expect: int = 0) -> str:
    """Train a tiny run and return what it said on standard error."""
    done = run(
        "trainer", "train", *TINY, "--run", str(folder), "--data", str(data), "--processes", str(processes), *settings
    )
    assert done.returncode == expect, done.stderr
    return done.stderr


@contextmanager
def trains_here(folder: RunFolder, data: Path, processes: int) -> Iterator[subprocess.Popen[str]]:
    """Let a run without an end train on this machine, as a user would, and be killed if it still does in the end."""
    settings = (*TINY, "--data", str(data), "--run", str(folder.path), "--processes", str(processes))
    command = ("launcher", "submit", *settings, "--cluster", "local")
    with begin(*command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert wait_for(lambda: len(list(folder.checkpoints.glob("0*"))) > 1, timeout_s=120), "it does not train"
        yield process
        process.kill()


def fingerprint(folder: Path) -> tuple[int, str]:
    """Return a run's images_seen and fingerprint, as the command prints them."""
    done = run("trainer", "fingerprint", str(folder))
    assert done.returncode == 0, done.stderr
    seen, digest = done.stdout.splitlines()
    return int(seen.removeprefix("images_seen ")), digest


@pytest.fixture(scope="session")
def shards32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled pictures as shards of 32 px: several, so that the order has two levels."""
    out = tmp_path_factory.mktemp("data") / "shards-32"
    done = run(
        *("shards", "build", "examples/clipart.zip", "--out", str(out), "--size", "32", "--shard-samples", "100")
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """StyleGAN3's networks have four layers in place of fourteen, which are the same operations as four."""
    monkeypatch.setattr(stylegan3, "LAYERS", 4)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
