"""What the cluster does to a run, on a real Slurm: the same bits and one history in the end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.dev_cluster import DevCluster
from tests.faults import FAULTS
from tests.ordeal import Ordeal, undisturbed_run
from tests.slurm_cluster import dev_cluster, on_slurm  # noqa: F401  # fixtures
from tests.wandb_server import WandbServer

IN_CI = ("preempted", "node_failed", "rank_killed", "rank_stopped", "fewer_nodes_on_resume")


@pytest.fixture(scope="module")
def undisturbed(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbs, on this machine."""
    return undisturbed_run(tmp_path_factory.mktemp("undisturbed") / "run", shards32)


@pytest.fixture
def server() -> Iterator[WandbServer]:
    """W&B, in this process."""
    with WandbServer() as server:
        yield server


@pytest.mark.parametrize("name", IN_CI)
def test_a_fault_leaves_no_trace(
    name: str,
    on_slurm: DevCluster,  # noqa: F811
    undisturbed: Path,
    shards32: Path,
    tmp_path: Path,
    server: WandbServer,
) -> None:
    ordeal = Ordeal(on_slurm, shards32, tmp_path / "run", server, random.Random(name))
    with ordeal.stack:
        FAULTS[name](ordeal)
        ordeal.check(undisturbed)
