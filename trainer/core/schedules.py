"""Schedules: closed forms of the pictures seen, so that nothing about them needs to be saved."""

from __future__ import annotations

import math


def half_cosine(first: float, last: float | None, images_seen: int, over_images: int) -> float:
    """Move from `first` to `last` along half a cosine over so many pictures; no last value: stay."""
    if last is None or over_images == 0:
        return first
    progress = min(1.0, images_seen / over_images)
    # cos falls from 1 to -1, so the share of `first` falls from 1 to 0.
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))


def warm_up(images_seen: int, over_images: int) -> float:
    """Rise from 0 to 1 in a straight line over so many pictures; the first update is not at 0."""
    return min(1.0, (images_seen + 1) / over_images) if over_images else 1.0
