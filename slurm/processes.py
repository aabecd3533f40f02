"""Find and stop the processes of a development cluster: by their environment, as names would match other clusters."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from slurm.dev_settings import CLUSTER_NAME

# Set in the environment of each daemon that `Daemons` starts; their children inherit it.
CLUSTER_MARK, NODE_MARK = "LIENZO_DEV_CLUSTER", "LIENZO_DEV_NODE"

Kind = Literal["munged", "controller", "slurmd", "job"]


class ClusterProcess(NamedTuple):
    """A process of a development cluster."""

    pid: int
    node: str
    """Empty for those that belong to no node."""
    command: str
    kind: Kind
    """`job`: slurmstepd, batch script, srun or task."""
    started: float
    """Seconds since 1970, as the kernel counts them: with the pid, what tells it from any other process."""


def find_processes(folder: Path) -> list[ClusterProcess]:
    """Return every live process of the cluster in `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it has ended meanwhile, or belongs to another user
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if place := classify_process(process, folder):
                kind, node = place
                command = " ".join(process.cmdline()).rstrip(": ") or process.name()
                found.append(ClusterProcess(process.pid, node, command, kind, process.create_time()))
    return found


def classify_process(process: psutil.Process, folder: Path) -> tuple[Kind, str] | None:
    """Return the kind and the node of a process of the cluster in `folder`; None: it is none of its processes."""
    carried = process.environ()
    if carried.get(CLUSTER_MARK) == str(folder):
        if node := carried.get(NODE_MARK):
            return "slurmd", node
        return ("munged" if process.name() == "munged" else "controller"), ""
    if belongs_to_job(carried, folder):
        return "job", carried["SLURMD_NODENAME"]
    # These overwrite their environment with their title, but keep the log of their daemon open.
    if process.name() in ("slurmstepd", "slurmscriptd"):
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            log = Path(os.readlink(link).removesuffix(" (deleted)"))
            if log.parent == folder / "logs":
                return ("job", log.stem) if process.name() == "slurmstepd" else ("controller", "")
    return None


def belongs_to_job(carried: Mapping[str, str], folder: Path) -> bool:
    """Return whether a process with this environment belongs to a job of the cluster in `folder`.

    SLURM_CONF alone does not prove it: a user may export it inside a job of the site's own Slurm.
    """
    node = carried.get("SLURMD_NODENAME", "")
    named = (carried.get("SLURM_CONF"), carried.get("SLURM_CLUSTER_NAME")) == (f"{folder}/slurm.conf", CLUSTER_NAME)
    return named and node != "" and (folder / "spool" / node).is_dir()


def stop_processes(
    found: Callable[[], Collection[ClusterProcess]], gently: bool = False, timeout_s: float = 15
) -> bool:
    """Kill processes until none is found any more, and return whether all are gone.

    Args:
        found: finds them; called again and again, as they may start others.
        gently: SIGTERM first, and SIGKILL only after half of the time.
        timeout_s: after which it gives up.
    """
    start = time.monotonic()
    asked: set[tuple[int, float]] = set()
    while left := found():
        waited_s = time.monotonic() - start
        if waited_s > timeout_s:
            return False
        for one in sorted(left, key=kill_order):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(one.pid)
                if process.create_time() != one.started:  # its pid was given to another process
                    continue
                if not gently or waited_s > timeout_s / 2:
                    process.kill()
                elif (one.pid, one.started) not in asked:
                    process.terminate()
                    asked.add((one.pid, one.started))  # once: a second SIGTERM may cut an orderly end short
        time.sleep(0.05)
    return True


def kill_order(one: ClusterProcess) -> int:
    """Sort key: slurmd and slurmstepd die before the tasks, so that none of them can report how the tasks ended."""
    return 0 if one.kind == "slurmd" else 1 if one.command.startswith("slurmstepd") else 2
