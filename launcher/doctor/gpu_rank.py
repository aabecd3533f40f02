"""One rank of the probe, one a GPU, as a run has them: `python -m launcher.doctor.gpu_rank FOLDER`.

It joins the others as training does, and measures what connects the GPUs; it writes `gpu-<rank>.json` into the folder.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from launcher.doctor.measured import GpuRank
from launcher.doctor.network import EXCHANGES, time_reduction
from shards.atomic_files import write_atomically
from slurm import job_environment
from trainer.core.fields import Refused
from trainer.distributed.cpu_affinity import bind_to_gpu
from trainer.distributed.gpu_places import RankPlace
from trainer.distributed.nccl_errors import in_words, meaning_of
from trainer.distributed.process_group import join_process_group
from trainer.distributed.world import World

PAIR_MB = 64
CHANNEL = re.compile(r"Channel \S+ : (\d+)\[\w+\] -> (\d+)\[\w+\] (?:\[\w+\] )?via (\w+/[A-Za-z]+)")


def measure(folder: Path, found: GpuRank) -> GpuRank:
    """Measure everything.

    Raises:
        Refused, RuntimeError: the ranks cannot be joined.
    """
    mine, places = join_process_group(found.node)
    bind_to_gpu(mine, places)
    found = replace(found, name=mine.name, peers=count_peers(mine), nvlinks=count_nvlinks(mine), infiniband=adapters())
    device = torch.device("cuda", mine.index) if mine.gpus else torch.device("cpu")
    if len(places) == 1:
        return found
    inside, between = partners(mine, places)
    found = replace(found, exchange_s=time_reduction(World(mine.rank, len(places)), device))
    # One kind after the other: in each of them all ranks exchange at once, as in a run.
    found = replace(found, inside_mb_s=measure_pair(inside, device), between_mb_s=measure_pair(between, device))
    near = {place.rank for place in places if place.host == mine.host}
    said = channels(folder.glob(f"nccl-{mine.rank}-*.log"))
    return replace(
        found,
        inside_via=tuple(sorted({via for peers, via in said if peers <= near})),
        between_via=tuple(sorted({via for peers, via in said if not peers <= near})),
    )


def partners(mine: RankPlace, places: Sequence[RankPlace]) -> tuple[int | None, int | None]:
    """Return the ranks with which one exchanges inside its node, and between nodes; None: there is none."""
    nodes: dict[str, list[int]] = {}
    for place in places:
        nodes.setdefault(place.host, []).append(place.rank)
    number, place_there = list(nodes).index(mine.host), nodes[mine.host].index(mine.rank)
    other = list(nodes.values())[number ^ 1 : (number ^ 1) + 1]
    inside = nodes[mine.host][place_there ^ 1 : (place_there ^ 1) + 1]
    return next(iter(inside), None), next((ranks[place_there] for ranks in other if place_there < len(ranks)), None)


def measure_pair(partner: int | None, device: torch.device) -> float | None:
    """Return the MB/s to and from a partner at once, the median; all ranks take part, those without one by waiting."""
    ours, theirs = (torch.zeros(PAIR_MB * 250_000, device=device) for _ in range(2))
    times = []
    for _ in range(EXCHANGES + 1):
        dist.barrier()
        began = time.perf_counter()
        if partner is not None:
            ways = [dist.P2POp(dist.irecv, theirs, partner), dist.P2POp(dist.isend, ours, partner)]
            for request in dist.batch_isend_irecv(ways):
                request.wait()
        if device.type == "cuda":
            torch.cuda.synchronize()  # by now the kernels are only queued
        times.append(time.perf_counter() - began)
    return None if partner is None else PAIR_MB / median(times[1:])  # the first one opens connections


def channels(logs: Iterable[Path]) -> set[tuple[frozenset[int], str]]:
    """Return which ranks NCCL has connected, and by which way, from what it says with NCCL_DEBUG=INFO."""
    texts = [log.read_text(errors="replace") for log in logs]
    return {(frozenset((int(a), int(b))), via) for text in texts for a, b, via in CHANNEL.findall(text)}


def count_peers(mine: RankPlace) -> int:
    """Return how many other GPUs in sight this one's memory is open to."""
    others = [index for index in range(mine.gpus) if index != mine.index]
    return sum(torch.cuda.can_device_access_peer(mine.index, other) for other in others)


def count_nvlinks(mine: RankPlace) -> int | None:
    """Return how many NVLinks of a GPU are up; None: nvidia-ml-py is not installed, or has no answer."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByPciBusId(mine.bus.encode())
    except Exception:  # its errors are its own classes, which are not there without it
        return None
    up = 0
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        with suppress(nvml.NVMLError):
            up += bool(nvml.nvmlDeviceGetNvLinkState(handle, link))
    return up


def adapters(sysfs: Path = Path("/sys")) -> tuple[str, ...]:
    """Return the InfiniBand adapters of this node."""
    folder = sysfs / "class" / "infiniband"
    return tuple(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ()


def main() -> None:
    """Measure, tell it, and leave."""
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    found = GpuRank(rank, job_environment.node_name())
    try:
        found = measure(folder, found)
    except Refused as error:
        found = replace(found, problem=str(error))
    except RuntimeError as error:
        meaning = meaning_of(error)
        found = replace(found, problem=in_words(meaning, error) if meaning else str(error).partition("\n")[0])
    write_atomically(folder / f"gpu-{rank}.json", json.dumps(asdict(found)).encode(), durable=False)
    # Not sys.exit: a process group that has failed may leave threads behind that never end.
    os._exit(0)


if __name__ == "__main__":
    main()
