"""Small exchanges of plain values between the processes, outside the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from trainer.core.fields import Refused
from trainer.distributed.world import World

T = TypeVar("T")


def on_main(world: World, act: Callable[[], T] | None) -> T:
    """Let the main process act (elsewhere `act` is not used), and return its result on every process.

    Raises:
        Refused: on every process, if the main process was refused.
    """
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


def gather(world: World, value: T) -> list[T]:
    """Return every process's value, in the order of ranks, on every process."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values
