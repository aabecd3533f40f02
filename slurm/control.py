"""The interface to a cluster: read its jobs, nodes and partitions, and control jobs, as scontrol and scancel do.

Everything goes through Slurm's own commands. slurmdbd is not needed: it only answers for jobs that ended long ago.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from slurm.accounting import find_ended_job
from slurm.client import run_slurm
from slurm.dev_cluster import FOLDER, DevCluster
from slurm.errors import NoAnswer, SlurmError
from slurm.parsing import as_job, as_node, as_partition, expand_node_list, parse_records
from slurm.reason_codes import describe_reason
from slurm.records import Node, Partition, SlurmJob

__all__ = [
    "NoAnswer", "Node", "Partition", "SlurmError", "SlurmJob", "cancel_job", "describe_reason", "exclude_nodes",
    "expand_node_list", "find_cluster", "list_nodes", "list_partitions", "requeue_job", "send_signal", "show_job",
    "show_node",
]  # fmt: skip

SYSTEM_CONFIGURATIONS = (Path("/etc/slurm/slurm.conf"), Path("/etc/slurm-llnl/slurm.conf"))


def find_cluster(folder: Path | str = ".") -> str | None:
    """Return the configuration that Slurm's commands use here; None: there is no Slurm.

    In this order: SLURM_CONF, the system's, one that sbatch fetches by itself ("configless"), and a development
    cluster that is up in `folder`/.slurm-dev; for that one, SLURM_CONF is set in this process.

    Raises:
        SlurmError: SLURM_CONF names a file that is not there.
    """
    if not shutil.which("sbatch"):
        return None
    if named := os.environ.get("SLURM_CONF"):
        if not Path(named).is_file():
            raise SlurmError(f"SLURM_CONF={named}: there is no such file")
        return named
    for path in SYSTEM_CONFIGURATIONS:
        if path.is_file():
            return str(path)
    try:
        run_slurm("sbatch", "--version", tries=1)  # it reads the configuration, and fails without one
    except SlurmError:
        pass
    else:
        return "configless"
    # Last of all: a development cluster that was left running must not take jobs that are meant for the site's Slurm.
    cluster = DevCluster(Path(folder) / FOLDER)
    if not cluster.is_up():
        return None
    os.environ |= cluster.environment  # so that sbatch and srun find it, too
    return str(cluster.conf)


def show_job(id: str | int) -> SlurmJob | None:
    """Return a job, or a task of an array; None: neither the controller nor the accounting knows it any more."""
    try:
        shown = run_slurm("scontrol", "show", "job", str(id))
    except SlurmError as error:
        # The controller forgets a job some minutes after its end: that alone is no failure.
        if "invalid job id" not in str(error).lower():
            raise
        return find_ended_job(str(id))
    found = [as_job(fields) for fields in parse_records(shown)]  # of an array, Slurm shows all tasks
    return next((one for one in found if one.id == str(id)), found[0] if found else None)


def list_nodes() -> list[Node]:
    """Return all nodes of the cluster."""
    return [as_node(fields) for fields in parse_records(run_slurm("scontrol", "show", "node")) if "NodeName" in fields]


def show_node(name: str) -> Node:
    """Return one node.

    Raises:
        SlurmError: there is none of that name.
    """
    shown = run_slurm("scontrol", "show", "node", name)
    for fields in parse_records(shown):
        if fields.get("NodeName") == name:
            return as_node(fields)
    raise SlurmError(f"scontrol show node {name}: {shown.strip()}")


def list_partitions() -> list[Partition]:
    """Return all partitions of the cluster."""
    known = {one.name: one for one in list_nodes()}  # partitions name their nodes, and do not describe them
    shown = run_slurm("scontrol", "show", "partition")
    return [as_partition(fields, known) for fields in parse_records(shown) if "PartitionName" in fields]


def requeue_job(id: str | int) -> None:
    """End a job, and put it back into the queue.

    Raises:
        SlurmError: it may not be requeued, or has ended.
    """
    run_slurm("scontrol", "requeue", str(id))


def cancel_job(id: str | int) -> None:
    """End a job for good; a job that has ended is left as it is."""
    run_slurm("scancel", str(id))


def send_signal(id: str | int, name: str) -> None:
    """Send a signal, such as USR2, to a job's tasks."""
    run_slurm("scancel", f"--signal={name}", str(id))


def exclude_nodes(id: str | int, names: Iterable[str]) -> None:
    """Exclude nodes from a pending job; this replaces the nodes that were excluded before."""
    run_slurm("scontrol", "update", f"JobId={id}", f"ExcNodeList={','.join(names)}")
