"""Which shards are copied into the cache, and in which order: as the planned order of the samples wants them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.dataset.order import Order

# A window up to this size is copied whole, and its samples wait for it. Of a larger one, which at 1 Gb/s would take
# longer than half a minute, samples are read one by one as they are wanted, and kept.
BULK_WINDOW = 4 << 30
LEAST_SHARE = 0.25  # of a window's samples that must still be wanted; else their ranges are less than whole shards


@dataclass(frozen=True)
class Need:
    """What is wanted from a position on."""

    shards: tuple[int, ...]  # to be copied, those that are wanted first at the beginning
    since: int  # the position from which on
    until: int  # the position at which the plan changes


def windows_from(order: Order, position: int) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
    """Yield (first position, position after the last, shards) of each window from the one at `position` on."""
    epoch, within = divmod(position, order.samples)
    while True:
        plan = order.epoch(epoch)
        starts = plan.starts[plan.windows]
        for w in range(int(np.searchsorted(starts, within, side="right")) - 1, len(starts) - 1):
            base = epoch * order.samples
            yield base + int(starts[w]), base + int(starts[w + 1]), plan.shards[plan.windows[w] : plan.windows[w + 1]]
        epoch, within = epoch + 1, 0


def shards_to_copy(order: Order, position: int, until: int, sizes: npt.NDArray[np.int64], room: int) -> Need:
    """Return the shards that are to be in the cache while the samples at `position` are read.

    Args:
        order: of the samples.
        position: of the next sample.
        until: the position at which the run ends.
        sizes: (shards,) bytes.
        room: bytes of the cache.
    """
    chosen: dict[int, None] = {}
    used, change = 0, 0
    for first, end, shards in windows_from(order, position):
        change = change or end
        size = int(sizes[shards].sum())
        share = (min(until, end) - max(position, first)) / (end - first)
        # The first window at all costs; of the next ones as many shards as there is room for.
        if first >= until or size > BULK_WINDOW or (first <= position and size > room):
            break
        if share < LEAST_SHARE:
            continue
        for shard in shards.tolist():
            used += 0 if shard in chosen else int(sizes[shard])
            if used > room or len(chosen) == len(sizes):
                return Need(tuple(chosen), position, change)
            chosen[shard] = None
        if len(chosen) == len(sizes):
            break
    return Need(tuple(chosen), position, change)
