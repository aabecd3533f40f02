"""The records of a job, a node and a partition."""

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
    """Slurm's reason code: why it is pending, or how it ended; see control.describe_reason."""
    node_list: str
    """In Slurm's shorthand, such as n[1-4]; empty while it is pending."""
    nodes: tuple[str, ...]
    restarts: int
    submit_time: float | None
    start_time: float | None
    """While it is pending: when Slurm expects to start it, if known."""
    end_time: float | None
    preempt_time: float | None
    comment: str
    task: str = ""
    """ARRAY_INDEX if it is a task of an array; else empty."""
    partition: str = ""
    nodes_asked: str = ""
    """Such as 4 or 2-4; once it runs, how many it has."""
    time_min: int | None = None
    """Time limit; None: there is none."""
    requeues: bool = True
    """Whether Slurm may requeue it."""

    @property
    def unique_id(self) -> str:
        """An id that names only this job: the number of an array's last task also names the whole array."""
        return self.task or self.id


@dataclass(frozen=True)
class Node:
    """What Slurm says of a node."""

    name: str
    address: str
    """NodeAddr: its address, because its name need not resolve in DNS."""
    state: str
    """IDLE, ALLOCATED, MIXED or DOWN, with +DRAIN, +COMPLETING, +NOT_RESPONDING, …"""
    cpus: int
    memory_mb: int
    gres: str
    reason: str
    port: int = 6818
    """The port of its slurmd."""
    slurmd_start_time: float | None = None
    """When the slurmd that last registered with the controller was started."""

    @property
    def gpus(self) -> int:
        """The number of its GPUs."""
        return count_gpus(self.gres)


@dataclass(frozen=True)
class Partition:
    """What Slurm says of a partition. Figures per node are those of its smallest node; only GPU nodes count, if any."""

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
    def preemptible(self) -> bool:
        """Whether its jobs can be preempted."""
        return self.preempt_mode not in ("", "OFF")


def count_gpus(gres: str) -> int:
    """Return the number of GPUs in a GRES string: 4 in `gpu:a100:4(S:0-1),shard:8`."""
    # The type is optional, and "(S:0-1)" lists sockets; shards of GPUs are no GPUs.
    return sum(int(count) for count in re.findall(r"(?:^|,)gpu(?::[^:,(]+)*?:(\d+)(?=[,(]|$)", gres))
