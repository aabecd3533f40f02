"""Axes of small SVG figures: where a value lies, and where the ticks are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

TINY = 1e-100  # as good as 0, whose logarithm and steps need not be found
WIDE = 5  # largest over smallest value: beyond, an axis is logarithmic


@dataclass(frozen=True)
class Axis:
    """From values to pixels.

    Args:
        low: the value at `start`.
        high: the value at `end`.
        start: pixel.
        end: pixel.
        log: whether it is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def of(cls, values: Iterable[float], start: float, end: float, log: bool | None = None) -> Axis:
        """Make one on which all values lie, logarithmic if they are wide apart and nothing else is asked for."""
        known = [0.0 if abs(value) < TINY else value for value in values]
        low, high = min(known), max(known)
        log = low > 0 and high / low > WIDE if log is None else log
        if log:
            room = (high / low) ** 0.05
            return cls(low / room, high * room, start, end, log)
        # A single value has no extent, and needs an axis all the same.
        room = 0.06 * (high - low) or abs(high) or 1.0
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        value, low, high = ((math.log(x) if self.log else x) for x in (value, self.low, self.high))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Return round values on the axis, some four."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            few = (1,) if last - first > 3 else (1, 2, 5)
            tens = range(first, last + 1, 1 + (last - first) // 6)
            return [x for ten in tens for x in (n * 10.0**ten for n in few) if self.low <= x <= self.high]
        rough = (self.high - self.low) / 4
        ten = 10.0 ** math.floor(math.log10(rough))
        step = next(n * ten for n in (1, 2, 5, 10) if n * ten >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [n * step for n in range(first, last + 1)]


def format_tick(value: float) -> str:
    """Write a tick: 0.5, 12, 3k, 25M."""
    for size, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{name}"
    return f"{value:.4g}".replace("-", "−")
