"""A job, a node and a partition, as Slurm describes them."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class SlurmJob:
    """What Slurm says of a job. Times are seconds since 1970."""

    id: str
    name: str
    state: str
    """PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, TIMEOUT, CANCELLED, PREEMPTED, NODE_FAIL, …"""
    reason: str
    """Why it waits or how it ended, in Slurm's word; see control.describe_reason."""
    node_list: str
    """As Slurm writes it, such as n[1-4]; empty while it waits."""
    nodes: tuple[str, ...]
    restarts: int
    submit_time: float | None
    start_time: float | None
    """While it waits: when Slurm expects to start it, if it does."""
    end_time: float | None
    preempt_time: float | None
    comment: str
    task: str = ""
    """ARRAY_NUMBER, if it is a task of an array."""
    partition: str = ""
    nodes_asked: str = ""
    """4, or 2-4; once it runs, how many it has."""
    time_min: int | None = None
    """Time limit; None: there is none."""
    requeues: bool = True
    """Whether it may be started again."""

    @property
    def unique_id(self) -> str:
        """What names it and no other: the number of an array's last task names the whole array as well."""
        return self.task or self.id


@dataclass(frozen=True)
class Node:
    """What Slurm says of a node."""

    name: str
    address: str
    """NodeAddr: where to reach it, when its name means nothing to DNS."""
    state: str
    """IDLE, ALLOCATED, MIXED or DOWN, with +DRAIN, +COMPLETING, +NOT_RESPONDING, …"""
    cpus: int
    memory_mb: int
    gres: str
    reason: str
    port: int = 6818
    """Where its slurmd listens."""
    slurmd_start_time: float | None = None
    """When the slurmd that it last heard of was started."""

    @property
    def gpus(self) -> int:
        """How many GPUs it has."""
        return count_gpus(self.gres)


@dataclass(frozen=True)
class Partition:
    """What Slurm says of a partition. What its nodes have is what the smallest has, of those with GPUs if any have."""

    name: str
    default: bool
    state: str
    max_time_min: int | None
    """None: no limit."""
    default_time_min: int | None
    max_nodes: int | None
    """The most nodes of one job; None: no limit."""
    total_nodes: int
    nodes: tuple[str, ...]
    cores_per_node: int
    memory_mb_per_node: int
    gpus_per_node: int
    gres_per_node: str
    """Empty if the nodes differ."""
    preempt_mode: str
    grace_s: int

    @property
    def preempts(self) -> bool:
        """Whether its jobs may have to give way to others."""
        return self.preempt_mode not in ("", "OFF")


def count_gpus(gres: str) -> int:
    """How many GPUs `gpu:a100:4(S:0-1),shard:8` has: 4."""
    return sum(int(count) for count in re.findall(r"(?:^|,)gpu(?::[^:,(]+)*?:(\d+)(?=[,(]|$)", gres))
