"""Fréchet distance without the bias of the sample size: FID∞.

Chong and Forsyth 2020, arXiv:1911.07023, §4: the bias is nearly linear in 1 / n, so the distance is measured at several
n, and the line through them is followed to 1 / n = 0. They draw subsets of the fakes at random and keep all reals. Here
all pictures are used at each size, as the whole, two halves and four quarters of both sides: nothing is drawn, and the
bias of the reals goes as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from trainer.metrics.arrays import check_pair
from trainer.metrics.base import Estimate, Features, Metric, Sample
from trainer.metrics.frechet import Gaussian
from trainer.metrics.intervals import BLOCKS, BY_BLOCKS, UNBIASED, Variance, block_slices
from trainer.metrics.moments import Moments

PARTS = (1, 2, 4)
QUARTERS = 4


def part_distances(real: Sequence[Moments], fake: Sequence[Moments], parts: int) -> list[float]:
    """Return the distance in each of 1, 2 or 4 parts, which are made of the quarters."""
    size = QUARTERS // parts
    return [distance_between(real[i : i + size], fake[i : i + size]) for i in range(0, QUARTERS, size)]


def distance_between(real: Sequence[Moments], fake: Sequence[Moments]) -> float:
    """Return the distance between the merged moments of both sides."""
    a, b = (Gaussian.with_moments(reduce(add, side)) for side in (real, fake))
    return a.distance(b)


def extrapolate(means: Sequence[float]) -> float:
    """Return the value at 0 parts of the line through the mean distances of 1, 2 and 4 parts: 1 / n = 0."""
    # The bias of the distance goes with 1 / n, that is, with the number of parts.
    return float(np.polynomial.Polynomial.fit(PARTS, means, 1)(0))


def estimate_fid_infinity(real: Features, fake: Features) -> tuple[float, Variance]:
    """Return FID∞ and its variance.

    Args:
        real, fake: (n, d) and (m, d), more than 4 d rows each, in random order.
    """
    sides = real, fake
    quarters = [[Moments.of(rows[span]) for span in block_slices(len(rows), QUARTERS)] for rows in sides]
    whole = {parts: part_distances(quarters[0], quarters[1], parts) for parts in PARTS}
    replicas = []
    for number, spans in enumerate(zip(*(block_slices(len(rows), BLOCKS) for rows in sides), strict=True)):
        quarter = number * QUARTERS // BLOCKS  # blocks are cut so that each lies in one quarter
        less = [
            [*own[:quarter], own[quarter] - Moments.of(rows[span]), *own[quarter + 1 :]]
            for own, rows, span in zip(quarters, sides, spans, strict=True)
        ]
        means = []
        for parts in PARTS:
            size = QUARTERS // parts
            part = quarter // size  # the only part that a left-out block changes
            changed = distance_between(*(own[part * size : (part + 1) * size] for own in less))
            means.append((sum(whole[parts]) - whole[parts][part] + changed) / parts)
        replicas.append(extrapolate(means))
    return extrapolate([float(np.mean(whole[parts])) for parts in PARTS]), Variance.jackknife(replicas)


def measure(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure the extrapolated distance of features."""
    features = check_pair(real.features, fake.features)
    count, columns = min(map(len, features)), features[0].shape[1]
    least = max(QUARTERS * (columns + 2), 2 * BLOCKS)
    if count < least:
        # Each quarter needs more rows than columns, or its covariance is singular and the line is bent.
        raise ValueError(f"with {columns} features the line to 1 / n = 0 needs {least} pictures, and there are {count}")
    value, variance = estimate_fid_infinity(*features)
    return {"fid_infinity": variance.around(value, len(features[1]), BY_BLOCKS.format(BLOCKS), UNBIASED)}


FID_INFINITY = Metric(
    "fid_infinity",
    frozenset({"features"}),
    {"fid_infinity": "lower"},
    "Fréchet distance extrapolated to infinitely many pictures (Chong and Forsyth 2020, arXiv:1911.07023)",
    measure,
)
