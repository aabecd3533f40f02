"""A cluster that is only described, and an sbatch that only notes what it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from slurm import control
from slurm.records import Node, Partition, SlurmJob

SBATCH = """\
#!/bin/bash
printf '%s\\n' "$@" > {folder}/argv
cp "${{@: -1}}" {folder}/script
{answer}
"""
TAKES_IT = 'echo "Submitted batch job 77"'
REFUSES = 'echo "sbatch: error: Batch job submission failed: Invalid account or qos" >&2; exit 1'

CPU = Partition(
    name="cpu",
    default=True,
    state="UP",
    max_time_min=2 * 24 * 60,
    default_time_min=None,
    max_nodes=6,
    total_nodes=8,
    nodes=tuple(f"c{n}" for n in range(1, 9)),
    cores_per_node=16,
    memory_mb_per_node=64_000,
    gpus_per_node=0,
    gres_per_node="",
    preempt_mode="REQUEUE",
    grace_s=120,
)
GPU = replace(
    CPU,
    name="gpu",
    default=False,
    max_nodes=None,
    nodes=tuple(f"g{n}" for n in range(1, 9)),
    cores_per_node=96,
    memory_mb_per_node=512_000,
    gpus_per_node=8,
    gres_per_node="gpu:h100:8",
)
BATCH = replace(GPU, name="batch", cores_per_node=32, gpus_per_node=4, gres_per_node="gpu:a100:4")
CLOSED = replace(CPU, name="closed", default=False, state="DOWN")
PARTITIONS = (CPU, GPU, BATCH, CLOSED)


@dataclass(frozen=True)
class FakeSlurm:
    """Where the fake sbatch notes what it is given."""

    folder: Path

    def answer(self, answer: str) -> None:
        """Let sbatch answer so."""
        for name in ("sbatch", "srun"):
            path = self.folder / name
            path.write_text(SBATCH.format(folder=self.folder, answer=answer))
            path.chmod(0o755)

    @property
    def argv(self) -> list[str]:
        """What the last sbatch was called with."""
        return (self.folder / "argv").read_text().splitlines()

    @property
    def script(self) -> str:
        """The last script."""
        return (self.folder / "script").read_text()


def live_job(id: str | int, state: str = "RUNNING") -> SlurmJob:
    """A job in a state."""
    return SlurmJob(
        id=str(id),
        name="run",
        state=state,
        reason="",
        node_list="c1",
        nodes=("c1",),
        restarts=0,
        submit_time=None,
        start_time=None,
        end_time=None,
        preempt_time=None,
        comment="",
    )


def nodes_of(partitions: Sequence[Partition]) -> list[Node]:
    """The nodes of partitions: machines that are not this one."""
    return [
        Node(name, f"10.0.0.{number}", "IDLE", where.cores_per_node, where.memory_mb_per_node, where.gres_per_node, "")
        for where in partitions
        for number, name in enumerate(where.nodes, 1)
    ]


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A cluster of PARTITIONS that takes each job as number 77; the current folder is empty, and on no tmpfs."""
    tools, here = tmp_path / "tools", tmp_path / "here"
    tools.mkdir()
    here.mkdir()
    fake = FakeSlurm(tools)
    fake.answer(TAKES_IT)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(here)
    answers: dict[str, Callable[..., object]] = {
        "find_cluster": lambda *_: "slurm.conf",
        "list_partitions": lambda: list(PARTITIONS),
        "list_nodes": lambda: nodes_of(PARTITIONS),
        "show_job": lambda id: None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(control, name, answer)
    monkeypatch.setattr("launcher.jobs.checks.file_system", lambda path: "nfs4")
    return fake
