"""Starts the probe's ranks on a node, one a GPU, and gathers what they have measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from launcher.doctor.measured import WAIT_S, GpuRank, ProbeMessages
from launcher.doctor.network import open_store
from slurm import job_environment
from trainer.distributed.rank_environment import rank_environment

MOST_S = 240.0  # importing torch, joining, some exchanges


def measure_gpus(messages: ProbeMessages, first: str, all_met: bool, gpus: int) -> tuple[GpuRank, ...]:
    """Return what the ranks of this node have measured; those that ended without a word say so.

    Args:
        messages: between the nodes.
        first: the address of the first node.
        all_met: each node reaches each other.
        gpus: of each node.

    Raises:
        OSError, RuntimeError: they cannot be started.
    """
    store = open_store(messages, first, all_met)
    mine = range(messages.rank * gpus, (messages.rank + 1) * gpus)
    children = {
        rank: start(messages.folder, rank, rank - mine[0], messages.size * gpus, gpus, (first, store.port))
        for rank in mine
    }
    deadline = time.monotonic() + MOST_S
    said = {}
    for rank, child in children.items():
        try:
            said[rank] = child.communicate(timeout=max(0.0, deadline - time.monotonic()))[0]
        except subprocess.TimeoutExpired:
            child.kill()
            said[rank] = f"no answer in {MOST_S:g} s"
            child.communicate()
    # The ranks of other nodes may still need the store of the first one.
    messages.write("gpus", True)
    messages.wait_for_all("gpus", timeout_s=WAIT_S if messages.rank == 0 else 0)
    return tuple(read_result(messages.folder, rank, said[rank]) for rank in mine)


def start(
    folder: Path, rank: int, local_rank: int, size: int, local_size: int, meeting: tuple[str, int]
) -> subprocess.Popen[str]:
    """Start one rank."""
    environment = rank_environment(os.environ, rank, local_rank, size, local_size)
    environment |= {"MASTER_ADDR": meeting[0], "MASTER_PORT": str(meeting[1])}
    # Only so does NCCL tell which ways it takes.
    environment |= {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT"}
    environment |= {"NCCL_DEBUG_FILE": str(folder / f"nccl-{rank}-%p.log")}
    return subprocess.Popen(
        [sys.executable, "-m", "launcher.doctor.gpu_rank", str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def read_result(folder: Path, rank: int, said: str) -> GpuRank:
    """Return what a rank has written, or else its last words."""
    try:
        return GpuRank.from_json(json.loads((folder / f"gpu-{rank}.json").read_text()))
    except (OSError, ValueError):
        last = said.strip().splitlines()[-1:] or ["it ended without a word"]
        return GpuRank(rank, job_environment.node_name(), problem=last[0])
