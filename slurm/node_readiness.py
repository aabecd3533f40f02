"""Wait until the nodes of a development cluster take jobs."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import psutil

from slurm.client import run_slurm
from slurm.errors import SlurmError
from slurm.parsing import as_node, parse_records
from slurm.processes import ClusterProcess, find_processes
from slurm.records import Node

READY_WITHIN_S = 60.0
RETURN_STATE = {"DRAIN": "UNDRAIN", "DOWN": "RESUME"}
GRACE_S = 3.0  # in which a daemon may still be putting itself into the background, where it is not found


def wait_until_ready(folder: Path, nodes: Collection[str]) -> None:
    """Wait until nodes of the cluster in `folder` take jobs; drained and down nodes are returned to service.

    Raises:
        SlurmError: they do not, or a daemon died; the message ends with its log.
    """
    start = time.monotonic()
    waiting = set(nodes)
    while waiting := waiting - ready_nodes(folder, waiting):
        waited_s = time.monotonic() - start
        if waited_s > GRACE_S:
            alive = find_processes(folder)
            if not any(one.kind == "controller" for one in alive):
                raise SlurmError(f"slurmctld died; {log_tail(folder / 'logs' / 'slurmctld.log')}")
            dead = waiting - {one.node for one in alive if one.kind == "slurmd"}
            if dead or waited_s > READY_WITHIN_S:
                name = min(dead or waiting)
                raise SlurmError(f"node {name} does not come up; {log_tail(folder / 'logs' / f'{name}.log')}")
        time.sleep(0.1)


def ready_nodes(folder: Path, names: Collection[str]) -> set[str]:
    """Return the nodes that take jobs; the others, once registered, are returned to service."""
    slurmds = {one.node: one for one in find_processes(folder) if one.kind == "slurmd" and one.node in names}
    environment = {"SLURM_CONF": f"{folder}/slurm.conf"}
    taking = set()
    with suppress(SlurmError):  # the controller does not answer yet
        shown = run_slurm("scontrol", "show", "node", environment=environment, timeout_s=10, tries=1)
        for node in map(as_node, parse_records(shown)):
            if node.name not in slurmds or not has_registered(node, slurmds[node.name]):
                continue
            if wrong := next((word for word in ("DRAIN", "DOWN") if word in node.state), None):
                # RESUME would leave a drained node "not responding" until the controller asks it next
                update = ("scontrol", "update", f"NodeName={node.name}", f"State={RETURN_STATE[wrong]}")
                run_slurm(*update, environment=environment, timeout_s=10, tries=1)
            elif node.state.partition("+")[0] in ("IDLE", "MIXED", "ALLOCATED") and "NOT_RESP" not in node.state:
                taking.add(node.name)
    return taking


def has_registered(node: Node, slurmd: ClusterProcess) -> bool:
    """Return whether the controller knows this very slurmd, by its start time in whole seconds, and it listens."""
    # 1.5: both times are rounded to seconds.
    if node.slurmd_start_time is None or node.slurmd_start_time < slurmd.started - 1.5:
        return False
    with suppress(psutil.Error):
        # Registered is not yet listening: a job that starts in between would fail.
        sockets = psutil.Process(slurmd.pid).net_connections("tcp")
        return any(one.status == psutil.CONN_LISTEN for one in sockets)
    return False


def log_tail(log: Path, lines: int = 8) -> str:
    """Return the last lines of a log, for a message."""
    try:
        tail = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        tail = ["(empty)"]
    return f"the end of {log}:\n  " + "\n  ".join(tail)
