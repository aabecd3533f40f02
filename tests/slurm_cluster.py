"""A real Slurm with four nodes for the tests; wire it with `from tests.slurm_cluster import dev_cluster, on_slurm`."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from slurm.dev_cluster import DevCluster
from slurm.dev_settings import DevClusterSettings
from slurm.errors import SlurmError

T = TypeVar("T")

UNFINISHED = ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING")


def wait_for(look: Callable[[], T], timeout_s: float = 30, every_s: float = 0.1) -> T:
    """What `look` returns, as soon as it is true; what it returned last, after the time-out."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()) and time.monotonic() < deadline:
        time.sleep(every_s)
    return seen


@pytest.fixture(scope="session")
def dev_cluster() -> Iterator[DevCluster]:
    """A cluster of four nodes, which preempts with SIGTERM and lets requeued jobs start soon."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: sockets lie in it
    cluster = DevCluster(folder)
    cluster.up(DevClusterSettings(nodes=4, requeue_delay_s=5))
    yield cluster
    cluster.down()
    shutil.rmtree(folder)


@pytest.fixture
def on_slurm(dev_cluster: DevCluster, monkeypatch: pytest.MonkeyPatch) -> DevCluster:
    """The cluster, and this process, its children and slurm.control use it; all nodes are ready and no job is left."""
    monkeypatch.setenv("SLURM_CONF", str(dev_cluster.conf))
    clear(dev_cluster)
    for node in dev_cluster.nodes():
        dev_cluster.heal(node.name)
    return dev_cluster


def clear(cluster: DevCluster) -> None:
    """End all jobs, at once."""

    def cleared() -> bool:
        jobs = cluster.jobs()
        with suppress(SlurmError):  # one may end by itself meanwhile
            for job in jobs:
                if job.state == "RUNNING":
                    cluster.ask("scancel", "--signal=KILL", "--full", job.id)
            if left := [job.id for job in jobs if job.state in UNFINISHED]:
                cluster.ask("scancel", *left)
            return not left
        return False

    assert wait_for(cleared, every_s=0.5)
