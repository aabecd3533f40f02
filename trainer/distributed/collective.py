"""Exchanges between ranks: plain values from outside the step, and tensors from peer to peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from trainer.core.fields import Refused
from trainer.distributed.world import World

T = TypeVar("T")


def on_main(world: World, act: Callable[[], T] | None) -> T:
    """Let the main process act (elsewhere `act` is not used), and return its result on every process.

    Raises:
        Refused: on every process, if the main process was refused.
    """
    # Result and refusal travel together: if rank 0 is refused, no rank waits for a result for ever.
    box: list[Any] = [None, None]
    if world.main:
        assert act is not None
        try:
            box[0] = act()
        except Refused as error:
            box[1] = error
    if world.size > 1:
        dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    result: T = box[0]
    return result


def gather_values(world: World, value: T) -> list[T]:
    """Return every process's value, in the order of ranks, on every process."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def exchange_tensors(sends: list[tuple[Tensor, int]], receives: list[tuple[Tensor, int]]) -> None:
    """Exchange tensors with peers; those between the same two ranks arrive in the order in which they are listed."""
    # As one batch: with NCCL, two ranks that send to each other one call after the other wait for ever.
    operations = [dist.P2POp(dist.irecv, tensor, peer) for tensor, peer in receives]
    operations += [dist.P2POp(dist.isend, tensor, peer) for tensor, peer in sends]
    for request in dist.batch_isend_irecv(operations):
        request.wait()
