"""Statistics of the pictures: whole numbers only, so that they are the same in whatever order they are added up."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from shards.images.decode import Picture

SIDES = (16, 32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384)  # pixels
ASPECTS = (0.125, 0.25, 0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5, 2.0, 4.0, 8.0)  # width / height

Tally = Counter[str]  # "what/which" -> how many, or how much


def tally_picture(tally: Tally, picture: Picture, label: int | None) -> None:
    """Add one picture."""
    pixels = picture.pixels.reshape(-1, 3).astype(np.int64)
    for channel, (total, squares) in enumerate(zip(pixels.sum(0), (pixels**2).sum(0), strict=True)):
        tally[f"sum/{channel}"] += int(total)
        tally[f"squares/{channel}"] += int(squares)
    tally["pixels"] += len(pixels)
    tally["pictures"] += 1
    tally["enlarged"] += min(picture.width, picture.height) < picture.pixels.shape[0]
    tally[f"mode/{picture.mode}"] += 1
    tally[f"format/{picture.format}"] += 1
    tally[f"width/{bisect_right(SIDES, picture.width)}"] += 1
    tally[f"height/{bisect_right(SIDES, picture.height)}"] += 1
    tally[f"aspect/{bisect_right(ASPECTS, picture.width / picture.height)}"] += 1
    for note in picture.notes:
        tally[f"noted/{note}"] += 1
    if label is not None:
        tally[f"class/{label}"] += 1


def statistics(tally: Tally) -> dict[str, Any]:
    """Return what index.json tells of the pictures; bin i of a histogram is edges[i - 1] <= value < edges[i]."""
    pixels = tally["pixels"] or 1
    mean = [tally[f"sum/{channel}"] / pixels for channel in range(3)]
    variance = [tally[f"squares/{channel}"] / pixels - mean[channel] ** 2 for channel in range(3)]
    noted = group(tally, "noted")
    return {
        "mean": [round(value, 4) for value in mean],
        "std": [round(max(value, 0.0) ** 0.5, 4) for value in variance],
        "enlarged": tally["enlarged"],
        "modes": group(tally, "mode"),
        "formats": group(tally, "format"),
        "widths": histogram(tally, "width", SIDES),
        "heights": histogram(tally, "height", SIDES),
        "aspects": histogram(tally, "aspect", ASPECTS),
        **({"noted": noted} if noted else {}),
    }


def group(tally: Mapping[str, int], what: str) -> dict[str, int]:
    """Return the counts of one kind, by what was counted."""
    return {key.partition("/")[2]: tally[key] for key in sorted(tally) if key.startswith(what + "/")}


def histogram(tally: Tally, what: str, edges: tuple[float, ...]) -> dict[str, list[Any]]:
    """Return the edges and the len(edges) + 1 counts between and beside them."""
    return {"edges": list(edges), "counts": [tally[f"{what}/{place}"] for place in range(len(edges) + 1)]}
