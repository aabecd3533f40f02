"""Statistics of the pictures, as counters that are added over shards.

All counters are integers: their sum is exact, so it does not depend on the order of the shards or the workers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from shards.images.decode import Picture

SIDE_EDGES = (16, 32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384)  # pixels
ASPECT_EDGES = (0.125, 0.25, 0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5, 2.0, 4.0, 8.0)  # width / height

Statistics = Counter[str]  # "kind/value" or "kind" -> count or sum, such as "mode/RGB" or "sum/0"


def count_picture(statistics: Statistics, picture: Picture, label: int | None) -> None:
    """Add one picture to the counters."""
    height, width, channels = picture.pixels.shape
    pixels = picture.pixels.reshape(-1, channels).astype(np.int64)
    for channel, (total, squares) in enumerate(zip(pixels.sum(0), (pixels**2).sum(0), strict=True)):
        statistics[f"sum/{channel}"] += int(total)
        statistics[f"squares/{channel}"] += int(squares)
    statistics["pixels"] += len(pixels)
    statistics["pictures"] += 1
    statistics["enlarged"] += picture.width < width or picture.height < height
    statistics[f"mode/{picture.mode}"] += 1
    statistics[f"format/{picture.format}"] += 1
    statistics[f"width/{bisect_right(SIDE_EDGES, picture.width)}"] += 1
    statistics[f"height/{bisect_right(SIDE_EDGES, picture.height)}"] += 1
    statistics[f"aspect/{bisect_right(ASPECT_EDGES, picture.width / picture.height)}"] += 1
    for note in picture.notes:
        statistics[f"noted/{note}"] += 1
    if label is not None:
        statistics[f"class/{label}"] += 1


def describe_statistics(statistics: Statistics, channels: int, duplicates: Mapping[str, int]) -> dict[str, Any]:
    """Return the "statistics" of index.json; bin i of a histogram is edges[i - 1] <= value < edges[i]."""
    pixels = statistics["pixels"] or 1
    mean = [statistics[f"sum/{channel}"] / pixels for channel in range(channels)]
    variance = [statistics[f"squares/{channel}"] / pixels - mean[channel] ** 2 for channel in range(channels)]
    noted = counts_of(statistics, "noted")
    return {
        "mean": [round(value, 4) for value in mean],
        "std": [round(max(value, 0.0) ** 0.5, 4) for value in variance],
        "enlarged": statistics["enlarged"],
        "modes": counts_of(statistics, "mode"),
        "formats": counts_of(statistics, "format"),
        "widths": statistics_histogram(statistics, "width", SIDE_EDGES),
        "heights": statistics_histogram(statistics, "height", SIDE_EDGES),
        "aspects": statistics_histogram(statistics, "aspect", ASPECT_EDGES),
        **({"noted": noted} if noted else {}),
        "duplicates": duplicates,
    }


def count_described(content: Mapping[str, Any]) -> Statistics:
    """Return the counters of a finished dataset, but for its classes, from its index.

    The index has mean and deviation with four digits, so the sums over its pixels are right to that many.
    """
    settings, described = content["settings"], content["statistics"]
    samples = sum(split["samples"] for split in content["splits"].values())
    pixels = samples * settings["height"] * settings["width"]
    statistics = Statistics({"pixels": pixels, "pictures": samples, "enlarged": described["enlarged"]})
    for channel, (mean, std) in enumerate(zip(described["mean"], described["std"], strict=True)):
        statistics[f"sum/{channel}"] = round(mean * pixels)
        statistics[f"squares/{channel}"] = round((std**2 + mean**2) * pixels)
    for kind, name in ("mode", "modes"), ("format", "formats"), ("noted", "noted"):
        statistics.update({f"{kind}/{value}": count for value, count in described.get(name, {}).items()})
    for kind, name in ("width", "widths"), ("height", "heights"), ("aspect", "aspects"):
        statistics.update({f"{kind}/{place}": count for place, count in enumerate(described[name]["counts"])})
    return statistics


def counts_of(statistics: Mapping[str, int], what: str) -> dict[str, int]:
    """Return the counters "kind/value" of one kind, by value."""
    return {key.partition("/")[2]: statistics[key] for key in sorted(statistics) if key.startswith(what + "/")}


def statistics_histogram(statistics: Statistics, what: str, edges: tuple[float, ...]) -> dict[str, list[Any]]:
    """Return the edges, and len(edges) + 1 counts: below the first, between them, and from the last on."""
    return {"edges": list(edges), "counts": [statistics[f"{what}/{place}"] for place in range(len(edges) + 1)]}
