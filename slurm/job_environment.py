"""Facts that a running job reads about itself from the environment that Slurm sets."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class TaskInfo:
    """A task of a job step, and its rank in it."""

    job: int
    restart_count: int
    """How often the job was requeued before this attempt."""
    rank: int
    size: int
    local_rank: int
    local_size: int
    node: str


def job_id() -> int:
    """Return the id of the job that this process belongs to; 0: none."""
    return int(os.environ.get("SLURM_JOB_ID", "0"))


def array_job_id() -> int:
    """Return the id of the array that the job is a task of; 0: none."""
    return int(os.environ.get("SLURM_ARRAY_JOB_ID", "0"))


def unique_job_id(id: int) -> int | str:
    """Return an id that names only this job: the number of an array's last task also names the whole array.

    Args:
        id: the number of the job.
    """
    return f"{array_job_id()}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array_job_id() else id


def restart_count() -> int:
    """Return how often the job was requeued; Slurm does not set the variable in the first attempt."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def node_list() -> str:
    """Return the nodes of the job in Slurm's shorthand, such as n[1-4]."""
    return os.environ.get("SLURM_JOB_NODELIST", "")


def num_nodes() -> int:
    """Return the number of nodes of the job; a step may have fewer."""
    return int(os.environ.get("SLURM_JOB_NUM_NODES", "0"))


def node_name() -> str:
    """Return the node that this process runs on."""
    # Slurm's name first: all nodes of a development cluster have the same host name.
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def task_info() -> TaskInfo:
    """Return the facts of this task.

    Raises:
        KeyError: this process is no task of a job step.
    """
    return TaskInfo(
        job_id(),
        restart_count(),
        int(os.environ["SLURM_PROCID"]),
        int(os.environ["SLURM_NTASKS"]),
        int(os.environ["SLURM_LOCALID"]),
        # Of the step, not of the job: SLURM_TASKS_PER_NODE counts what the job could run.
        tasks_on_node(os.environ["SLURM_STEP_TASKS_PER_NODE"], int(os.environ["SLURM_NODEID"])),
        node_name(),
    )


def tasks_on_node(shorthand: str, node: int) -> int:
    """Return the tasks of a node (from 0), from Slurm's shorthand, as in "2(x3),1"."""
    counts: list[int] = []
    for part in shorthand.split(","):
        tasks, _, times = part.partition("(x")
        counts += [int(tasks)] * int(times.rstrip(")") or 1)
    return counts[node]


def interface_variables(interface: str) -> dict[str, str]:
    """Return the variables that make gloo and NCCL take one interface, and no other."""
    # NCCL takes a name for the beginning of one, unless = stands before it: eth1 would be eth10 as well.
    return {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}


def interface_towards(address: str) -> str | None:
    """Return the network interface of this machine that leads to an address; None: unknown.

    Without it gloo and NCCL use the address of the host's own name, often a loopback that no other node reaches.
    """
    try:
        # Any port will do (9 is discard).
        family, kind, _, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # nothing is sent: the kernel only looks up the route
            own = str(probe.getsockname()[0])
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        # Link-local IPv6 addresses end in %INTERFACE.
        if any(a.address.partition("%")[0] == own for a in addresses):
            return str(name)
    return None
