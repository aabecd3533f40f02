"""What a running job can know of itself, from the environment that Slurm gives it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class TaskPlace:
    """One task's place in its job."""

    job: int
    restart: int
    """How often the job was started before."""
    rank: int
    size: int
    local_rank: int
    local_size: int
    node: str


def job_id() -> int:
    """Return the job that this process belongs to; 0: none."""
    return int(os.environ.get("SLURM_JOB_ID", "0"))


def array() -> int:
    """Return the array that the job is a task of; 0: none."""
    return int(os.environ.get("SLURM_ARRAY_JOB_ID", "0"))


def own_name(id: int) -> int | str:
    """Return what names this job, of number `id`, and no other: that of an array's last task is the array's as well."""
    return f"{array()}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array() else id


def restart() -> int:
    """Return how often the job was started before; Slurm says nothing at its first start."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def node_list() -> str:
    """Return the job's nodes in Slurm's own shorthand."""
    return os.environ.get("SLURM_JOB_NODELIST", "")


def num_nodes() -> int:
    """Return how many nodes the job has; a step may have fewer."""
    return int(os.environ.get("SLURM_JOB_NUM_NODES", "0"))


def node_name() -> str:
    """Return the node that this process runs on."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def place() -> TaskPlace:
    """Return this task's place.

    Raises:
        KeyError: this process is no task of a job step.
    """
    return TaskPlace(
        job_id(),
        restart(),
        int(os.environ["SLURM_PROCID"]),
        int(os.environ["SLURM_NTASKS"]),
        int(os.environ["SLURM_LOCALID"]),
        tasks_on_node(os.environ["SLURM_STEP_TASKS_PER_NODE"], int(os.environ["SLURM_NODEID"])),
        node_name(),
    )


def tasks_on_node(shorthand: str, node: int) -> int:
    """Read how many tasks a node has from Slurm's shorthand, as in "2(x3),1"."""
    counts: list[int] = []
    for part in shorthand.split(","):
        tasks, _, times = part.partition("(x")
        counts += [int(tasks)] * int(times.rstrip(")") or 1)
    return counts[node]


def interface_towards(address: str) -> str | None:
    """Return the network interface of this machine that leads to an address; None: it cannot be told.

    Without it gloo and NCCL take what the host's own name resolves to, often a loopback that no other node reaches.
    """
    try:
        family, kind, _, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # nothing is sent: the kernel only looks up the route
            own = str(probe.getsockname()[0])
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(a.address.partition("%")[0] == own for a in addresses):
            return str(name)
    return None
