"""The pictures on a dataset's card: the mean, and examples. They are read from the finished shards, evenly spread."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.building.holdout import TRAIN
from shards.building.layout import ShardPlan
from shards.images.display import over_checkerboard, over_white
from shards.images.encode import ENCODINGS

EXAMPLES = 24
MAX_EXAMPLE = 128  # pixels a side
MAX_MEAN, MEAN_PIXELS = 4096, 1 << 26  # pictures of which the mean is taken, and their pixels in all
Shape = tuple[int, int, int]  # height, width and channels
Drawn = tuple[int, npt.NDArray[np.uint8]]  # place in the listing, and pixels: (height, width, channels)


def spread(samples: int, number: int) -> npt.NDArray[np.int64]:
    """Return at most so many of the numbers below `samples`, evenly spread: (n,)."""
    number = min(samples, number)
    return np.arange(number) * samples // max(1, number)


def count_for_mean(shape: Shape) -> int:
    """Return of how many pictures the mean is taken."""
    return max(EXAMPLES, min(MAX_MEAN, MEAN_PIXELS // (shape[0] * shape[1])))


def read_training_pictures(
    plans: Iterator[ShardPlan], out: Path, chosen: npt.NDArray[np.int64], shape: Shape, encode: str
) -> Iterator[Drawn]:
    """Yield training pictures from the finished shards.

    Args:
        plans: of the shards.
        out: their folder.
        chosen: numbers of the training samples, ascending: (n,).
        shape: of the pictures.
        encode: a key of ENCODINGS.

    Raises:
        OSError: a shard cannot be read.
    """
    first = 0
    for plan in plans:
        if plan.split != TRAIN:
            return
        here = chosen[slice(*np.searchsorted(chosen, (first, first + plan.samples)))] - first
        first += plan.samples
        if not len(here):
            continue
        rows, positions = plan.rows(), plan.positions()
        with (out / plan.name).open("rb") as file:
            for row, position in zip(rows[here], positions[here].tolist(), strict=True):
                pixels = np.empty(shape, np.uint8)
                data = os.pread(file.fileno(), int(row["size"]), int(row["offset"]))
                ENCODINGS[encode].decode(data, pixels)
                yield position, pixels


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
