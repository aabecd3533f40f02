"""One rank a GPU: each rank tells the others which GPU it would take, and all refuse what NCCL could not join.

The places are exchanged through the store where the ranks meet, before NCCL is touched: every rank then sees the same
table, so all refuse together, or none does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed import Store  # type: ignore[attr-defined]  # re-exported without a word

from trainer.core.fields import Refused

LAST_READER_S = 10.0  # the rank that may serve the store stays for so long, until all have read


class RefusedEverywhere(Refused):
    """Every rank finds the same: it is enough that one of them says it."""


@dataclass(frozen=True)
class RankPlace:
    """Where a rank is, and which GPU it takes."""

    rank: int
    local_rank: int
    node: str
    """Its name, as messages say it."""
    host: str
    """Tells machines apart whatever they are called: two nodes of a development cluster are one."""
    cores: tuple[int, ...]
    """That it may use."""
    gpus: int = 0
    """That it sees."""
    index: int = 0
    """Of the GPU that it takes, among these."""
    name: str = ""
    uuid: str = ""
    bus: str = ""
    """PCI address, as sysfs writes it: 0000:07:00.0; empty: not known."""

    @property
    def sliced(self) -> bool:
        """Tell whether its GPU is a MIG slice."""
        return " MIG " in self.name


def own_place(environment: Mapping[str, str], node: str) -> RankPlace:
    """Return the place of this process.

    Args:
        environment: has RANK and LOCAL_RANK, where there are several processes.
        node: the name of this one.
    """
    local_rank = int(environment.get("LOCAL_RANK", "0"))
    cores = tuple(sorted(os.sched_getaffinity(0)))
    place = RankPlace(int(environment.get("RANK", "0")), local_rank, node, machine_id(), cores)
    # Nothing here makes a context on a GPU: one in exclusive mode would refuse the second rank before we can say why.
    if not torch.cuda.is_available():
        return place
    gpus = torch.cuda.device_count()
    # With --gpu-bind=single or a CUDA_VISIBLE_DEVICES of its own, a rank sees one GPU, whatever its local rank.
    index = local_rank % gpus
    found = torch.cuda.get_device_properties(index)
    return replace(place, gpus=gpus, index=index, name=found.name, uuid=str(found.uuid), bus=pci_address(found))


def machine_id() -> str:
    """Return what tells this machine from others."""
    # NCCL takes two ranks for neighbours by the same file, also in containers.
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return os.uname().nodename


def pci_address(found: object) -> str:
    """Return the PCI address of a GPU from torch's properties of it; empty: this torch does not tell."""
    if not hasattr(found, "pci_bus_id"):
        return ""
    domain, bus, device = (int(getattr(found, f"pci_{part}_id")) for part in ("domain", "bus", "device"))
    return f"{domain:04x}:{bus:02x}:{device:02x}.0"


def exchange_places(store: Store, mine: RankPlace, size: int) -> list[RankPlace]:
    """Return the places of all ranks, in their order, on every rank.

    Raises:
        RefusedEverywhere: NCCL could not join them, or some of them compute on CPUs.
    """
    store.set(key("place", mine.rank), json.dumps(asdict(mine)))
    places = [read_place(value) for value in store.multi_get([key("place", rank) for rank in range(size)])]
    if problem := unusable(places):
        store.set(key("place-read", mine.rank), "1")
        if mine.rank == 0:  # it may be the process that serves the store
            with suppress(RuntimeError):
                store.wait([key("place-read", rank) for rank in range(size)], timedelta(seconds=LAST_READER_S))
        raise RefusedEverywhere(problem)
    return places


def key(topic: str, rank: int) -> str:
    """Return where a rank writes."""
    return f"lienzo/{topic}/{rank}"


def read_place(value: bytes) -> RankPlace:
    """Read what `exchange_places` wrote."""
    values = json.loads(value)
    return RankPlace(**values | {"cores": tuple(values["cores"])})


def unusable(places: Sequence[RankPlace]) -> str:
    """Say what keeps ranks from training together, and what to do; empty: nothing."""
    without = [place for place in places if not place.gpus]
    if without and len(without) < len(places):
        other = next(place for place in places if place.gpus)
        return (
            f"rank {without[0].rank} on {without[0].node} sees no GPU, and rank {other.rank} on {other.node} sees "
            f"{other.gpus}: give every node GPUs of one kind (--partition or --gpus-per-node on Slurm, "
            "CUDA_VISIBLE_DEVICES here), and look at nvidia-smi on that node"
        )
    taken: dict[tuple[str, str], RankPlace] = {}
    for place in places if not without else ():
        # NCCL joins cards, not slices of them, so the PCI address counts; UUIDs tell cards apart where it is not known.
        card = (place.host, place.bus) if place.bus else ("", place.uuid)
        if first := taken.get(card):
            return describe_shared(first, place, places)
        taken[card] = place
    return ""


def describe_shared(first: RankPlace, second: RankPlace, places: Sequence[RankPlace]) -> str:
    """Say that two ranks would use one GPU, why, and what to do."""
    where = f"{first.name}, {first.bus or first.uuid}"
    shared = f"rank {first.rank} and rank {second.rank} on {second.node} have the same GPU ({where})"
    if first.sliced or second.sliced:
        return (
            f"{shared}, cut into MIG slices: NCCL joins whole cards only, so use one slice (--processes 1, or "
            "--nodes 1 --gpus-per-node 1), or GPUs without MIG"
        )
    beside = [place for place in places if place.host == second.host]
    if len(beside) > max(place.gpus for place in beside):
        return (
            f"{shared}: {len(beside)} processes for {second.gpus} GPUs there. Start one process a GPU: "
            f"--processes {second.gpus} on this machine, --gpus-per-node {second.gpus} on Slurm"
        )
    return (
        f"{shared}, though there is one for each: something gives them the same CUDA_VISIBLE_DEVICES. Take it out of "
        "the profile's environment and setup, and --gpu-bind out of its srun"
    )
