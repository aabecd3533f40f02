"""The process group of the ranks, joined by us and not by accelerate, which then finds it there.

So the ranks compare their places before NCCL is touched, and NCCL knows each rank's device from the start: it connects
at once, and what is wrong shows here rather than in the first exchange.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
import torch.distributed as dist

from trainer.distributed.gpu_places import RankPlace, exchange_places, own_place


def join_process_group(node: str, environment: Mapping[str, str] = os.environ) -> tuple[RankPlace, list[RankPlace]]:
    """Join the group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT name, if any; return our own and all places.

    This rank's GPU becomes torch's current device.

    Args:
        node: the name of this one, for messages.
        environment: of this process.

    Raises:
        RefusedEverywhere: the ranks cannot train together.
        RuntimeError: NCCL or gloo fails.
    """
    mine = own_place(environment, node)
    places = [mine]
    if "RANK" in environment and "WORLD_SIZE" in environment:
        store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]  # re-exported without a word
        places = exchange_places(store, mine, size)
        if mine.gpus:
            torch.cuda.set_device(mine.index)
        dist.init_process_group(
            "nccl" if mine.gpus else "gloo",
            store=dist.PrefixStore("default_pg", store),  # type: ignore[attr-defined]
            rank=rank,
            world_size=size,
            # With a device NCCL connects here, and a barrier knows where it is. One rank alone needs no connection.
            device_id=torch.device("cuda", mine.index) if mine.gpus and size > 1 else None,
        )
    elif mine.gpus:
        torch.cuda.set_device(mine.index)
    return mine, places
