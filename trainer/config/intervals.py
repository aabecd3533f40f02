"""How often a run is measured and saved where nobody says it: so many times in its length, but not too often.

At a GPU's speed a fixed number of pictures passes in a moment, and a long run would do nothing but measure. A run keeps
what it began with, however it is extended.
"""

from __future__ import annotations

from typing import Literal

Interval = Literal["log", "sample", "checkpoint", "anchor", "collapse"]

ROUND = 1_000  # pictures: the intervals are round numbers
# How often in a run, and the fewest pictures between two times.
TIMES: dict[Interval, tuple[int, int]] = {
    "sample": (32, 64_000),
    "checkpoint": (32, 64_000),
    "anchor": (32, 64_000),
    "collapse": (64, 32_000),
}


def default_interval(of: Interval, total_images: int) -> int:
    """Return the pictures between two times in a run of a length."""
    times, least = TIMES[of]
    return max(least, -(-total_images // (times * ROUND)) * ROUND)
