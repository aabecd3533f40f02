"""The processes of a development cluster, found by what they carry and not by their names alone."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from slurm.dev_settings import CLUSTER_NAME

# Set in the environment of each daemon that we start.
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
    """Every live process of the cluster in `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if place := classify_process(process, folder):
                kind, node = place
                command = " ".join(process.cmdline()).rstrip(": ") or process.name()
                found.append(ClusterProcess(process.pid, node, command, kind, process.create_time()))
    return found


def classify_process(process: psutil.Process, folder: Path) -> tuple[Kind, str] | None:
    """What a process is to the cluster in `folder`, and on which node; None if it has nothing to do with it."""
    carried = process.environ()
    if carried.get(CLUSTER_MARK) == str(folder):
        if node := carried.get(NODE_MARK):
            return "slurmd", node
        return ("munged" if process.name() == "munged" else "controller"), ""
    if belongs_to_job(carried, folder):
        return "job", carried["SLURMD_NODENAME"]
    # These write their titles over their environment, but keep the log open that their daemon had opened.
    if process.name() in ("slurmstepd", "slurmscriptd"):
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            log = Path(os.readlink(link).removesuffix(" (deleted)"))
            if log.parent == folder / "logs":
                return ("job", log.stem) if process.name() == "slurmstepd" else ("controller", "")
    return None


def belongs_to_job(carried: Mapping[str, str], folder: Path) -> bool:
    """Whether a process with this environment belongs to a job of the cluster in `folder`.

    Its SLURM_CONF alone does not tell: a user may export it within a job of the site's own Slurm.
    """
    node = carried.get("SLURMD_NODENAME", "")
    named = (carried.get("SLURM_CONF"), carried.get("SLURM_CLUSTER_NAME")) == (f"{folder}/slurm.conf", CLUSTER_NAME)
    return named and node != "" and (folder / "spool" / node).is_dir()


def stop_processes(
    found: Callable[[], Collection[ClusterProcess]], gently: bool = False, timeout_s: float = 15
) -> bool:
    """SIGKILL what is found until nothing is found any more, with a SIGTERM and some seconds before if `gently`.

    Returns whether all are gone.
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
                if process.create_time() != one.started:
                    continue
                if not gently or waited_s > timeout_s / 2:
                    process.kill()
                elif (one.pid, one.started) not in asked:
                    process.terminate()
                    asked.add((one.pid, one.started))
        time.sleep(0.05)
    return True


def kill_order(one: ClusterProcess) -> int:
    """A node's daemons before its tasks: none of them may live to report what became of the others."""
    return 0 if one.kind == "slurmd" else 1 if one.command.startswith("slurmstepd") else 2
