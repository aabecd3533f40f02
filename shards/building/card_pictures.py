"""The pictures on a dataset's card: the mean, and examples. They are read from the finished shards, evenly spread."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.building.attributes import Plans
from shards.building.build_db import BuildDb
from shards.building.holdout import TRAIN
from shards.building.kept_shard import KeptShard
from shards.building.layout import ShardPlan
from shards.building.target import Target
from shards.dataset.index import ORIGINAL
from shards.images.display import over_checkerboard, over_white
from shards.images.encode import ENCODINGS

EXAMPLES = 24
MAX_EXAMPLE = 128  # pixels a side
MAX_DECODED = 256  # pictures of which the mean is taken, where they are not stored as they are
MAX_MEAN, MEAN_PIXELS = 4096, 1 << 26  # pictures of which the mean is taken, and their pixels in all
Drawn = tuple[str, npt.NDArray[np.uint8]]  # name in the source, and pixels: (height, width, channels)
ReadPictures = Callable[[npt.NDArray[np.int64]], Iterator[Drawn]]
"""Yields the training pictures of these numbers, ascending: (n,)."""


def spread(samples: int, number: int) -> npt.NDArray[np.int64]:
    """Return at most so many of the numbers below `samples`, evenly spread: (n,)."""
    number = min(samples, number)
    return np.arange(number) * samples // max(1, number)


def count_for_mean(settings: Mapping[str, Any]) -> int:
    """Return of how many pictures the mean is taken: of few, where each must be decoded at its full size."""
    most = MAX_DECODED if settings["encode"] == ORIGINAL else MAX_MEAN
    pixels: int = settings["height"] * settings["width"]
    return max(EXAMPLES, min(most, MEAN_PIXELS // pixels))


def read_training_pictures(
    build_db: BuildDb, plans: Plans, target: Target, settings: Mapping[str, Any], chosen: npt.NDArray[np.int64]
) -> Iterator[Drawn]:
    """Yield training pictures from the finished shards.

    Args:
        build_db: of the build.
        plans: returns the shards.
        target: where they are.
        settings: of the build.
        chosen: numbers of the training samples, ascending: (n,).

    Raises:
        OSError: a shard cannot be read.
    """
    first = 0
    for plan in plans():
        if plan.split != TRAIN:
            return
        here = chosen[slice(*np.searchsorted(chosen, (first, first + plan.samples)))] - first
        first += plan.samples
        if not len(here):
            continue
        if isinstance(plan, KeptShard):
            yield from plan.read(here, target.read_ranges(plan.name, plan.regions(here)))
        else:
            yield from read_new(build_db, plan, target, settings, here)


def read_new(
    build_db: BuildDb, plan: ShardPlan, target: Target, settings: Mapping[str, Any], here: npt.NDArray[np.int64]
) -> Iterator[Drawn]:
    """Yield pictures of one new shard."""
    shape = settings["height"], settings["width"], settings["channels"]
    ranges = [(int(row["offset"]), int(row["size"])) for row in plan.rows()[here]]
    for position, data in zip(plan.positions()[here].tolist(), target.read_ranges(plan.name, ranges), strict=True):
        pixels = np.empty(shape, np.uint8)
        ENCODINGS[settings["encode"]].decode(data, pixels)
        yield build_db.name_at(position), pixels


def mean_picture(pictures: Iterator[Drawn]) -> npt.NDArray[np.uint8]:
    """Return the mean of pictures, rounded: (height, width, 3); transparent ones lie over white."""
    count, (_, first) = 1, next(pictures)
    total = over_white(first).astype(np.int64)
    for _, pixels in pictures:
        total += over_white(pixels)
        count += 1
    return ((2 * total + count) // (2 * count)).astype(np.uint8)


def to_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a picture as PNG, no larger than MAX_EXAMPLE; a transparent one lies over a checkerboard."""
    image = Image.fromarray(over_checkerboard(pixels))
    image.thumbnail((MAX_EXAMPLE, MAX_EXAMPLE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
