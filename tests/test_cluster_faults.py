"""What the cluster does to a run, on a real Slurm: the same bits and one history in the end."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.dev_cluster import DevCluster
from tests.conftest import TINY, train
from tests.faults import FAULTS
from tests.ordeal import SETTINGS, TOTAL, Ordeal, undisturbed_run
from tests.wandb_server import WandbServer
from trainer.runs.checkpoint import Damaged, find_checkpoints

IN_CI = ("preempted", "node_failed")


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
    on_slurm: DevCluster,
    undisturbed: Path,
    shards32: Path,
    tmp_path: Path,
    server: WandbServer,
) -> None:
    ordeal = Ordeal(on_slurm, shards32, tmp_path / "run", server, random.Random(name))
    with ordeal.stack:
        FAULTS[name](ordeal)
        ordeal.check(undisturbed)


def test_what_is_held_against_a_run_can_turn_red(
    on_slurm: DevCluster,
    undisturbed: Path,
    shards32: Path,
    tmp_path: Path,
) -> None:
    """Else the tests above would mean nothing: a row, a weight, a checkpoint, a lease that are not as they must be."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    ordeal = Ordeal(on_slurm, shards32, folder)
    ordeal.check(undisturbed)
    metrics = ordeal.run.metrics.read_bytes()
    ordeal.run.metrics.write_bytes(metrics.replace(b"0.", b"1.", 1))
    with pytest.raises(AssertionError):
        ordeal.check(undisturbed)
    ordeal.run.metrics.write_bytes(metrics)
    ordeal.run.lease.write_text("{}")
    with pytest.raises(AssertionError, match="the lease is left"):
        ordeal.check(undisturbed)
    ordeal.run.lease.unlink()
    older = find_checkpoints(ordeal.run.checkpoints)[-1].path / "state.safetensors"
    weights = older.read_bytes()
    older.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(Damaged):
        ordeal.check(undisturbed)
    older.write_bytes(weights)
    train(folder, shards32, *SETTINGS[len(TINY) :], "--total-images", str(TOTAL + 32))
    with pytest.raises(AssertionError):
        ordeal.check(undisturbed)
