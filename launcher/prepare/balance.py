"""Which tasks make up which share: consecutive ones, so that archives are read in order, of nearly equal bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from launcher.prepare.folder import PlannedShare
from shards.building.share import OpenTask


def plan_shares(tasks: Sequence[OpenTask], count: int) -> list[PlannedShare]:
    """Cut tasks into shares; fewer than `count`, if there are not so many tasks.

    Each share ends at the task whose end is nearest to its part of all bytes, so no share has more than the mean and
    the bytes of one task.
    """
    cuts = [*cut_points([task.bytes for task in tasks], min(count, len(tasks)))]
    return [
        PlannedShare(
            tasks[begin].number,
            tasks[end - 1].number + 1,
            sum(task.size for task in tasks[begin:end]),
            sum(task.bytes for task in tasks[begin:end]),
        )
        for begin, end in zip([0, *cuts], cuts, strict=False)
    ]


def cut_points(weights: Sequence[int], count: int) -> Iterator[int]:
    """Yield where each of `count` parts of a sequence ends; none is empty."""
    # 1: tasks of which nothing is read are shared out, too.
    ends = np.array([*accumulate(weight + 1 for weight in weights)], dtype=np.float64)
    end = 0
    for part in range(1, count + 1):
        wanted = ends[-1] * part / count
        after = min(int(np.searchsorted(ends, wanted)), len(ends) - 1)  # the first task that ends there or behind it
        before = ends[after - 1] if after else 0.0
        nearest = after + 1 if ends[after] - wanted < wanted - before else after
        # At least one task more than before, and one left for each part that follows.
        end = min(max(nearest, end + 1), len(weights) - (count - part))
        yield end
