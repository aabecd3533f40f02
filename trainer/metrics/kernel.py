"""Kernel distance: the squared maximum mean discrepancy with a cubic kernel, KID when features are of pictures.

Bińkowski et al. 2018, arXiv:1801.01401, §4: k(x, y) = (x·y / d + 1)³. Here it is the U-statistic over all pairs, not an
average over random subsets, so it has no randomness of its own and the least variance; it is unbiased at any n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.metrics.arrays import check_pair, float64_pieces, row_spans
from trainer.metrics.base import Estimate, Features, Float64Array, Metric, Sample
from trainer.metrics.intervals import UNBIASED, Variance


def cubic_kernel(x: Float64Array, y: Float64Array) -> Float64Array:
    """Return (x·y / d + 1)³ for all pairs."""
    base = x @ y.T  # in place from here on: the matrix of all pairs is the largest object in memory
    base /= x.shape[1]
    base += 1
    cube = np.square(base)
    cube *= base
    return cube


def cross_sums(x: Features, y: Features) -> tuple[Float64Array, Float64Array]:
    """Return, for each row of x, the sum of the kernel with all of y, and for each row of y that with all of x."""
    of_x, of_y = np.zeros(len(x)), np.zeros(len(y))
    for here, piece in zip(row_spans(len(x)), float64_pieces(x), strict=True):
        for there, other in zip(row_spans(len(y)), float64_pieces(y), strict=True):
            kernel = cubic_kernel(piece, other)
            of_x[here] += kernel.sum(1)
            of_y[there] += kernel.sum(0)
    return of_x, of_y


def own_sums(x: Features) -> Float64Array:
    """Return, for each row, the sum of the kernel with all other rows; each pair is computed once."""
    sums = np.zeros(len(x))
    for here, piece in zip(row_spans(len(x)), float64_pieces(x), strict=True):
        kernel = cubic_kernel(piece, piece)
        np.fill_diagonal(kernel, 0)  # the U-statistic leaves out pairs of a row with itself, which bias it
        sums[here] += kernel.sum(1)
        of_piece, of_rest = cross_sums(piece, x[here.stop :])  # only later rows: the kernel is symmetric
        sums[here] += of_piece
        sums[here.stop :] += of_rest
    return sums


@dataclass(frozen=True)
class KernelSums:
    """Sums of the kernel over pairs, which give the distance, and the distance without any one row.

    Args:
        real, fake: (n,) and (m,), of each row with all others on its side.
        real_cross, fake_cross: (n,) and (m,), of each row with all rows of the other side.
    """

    real: Float64Array
    fake: Float64Array
    real_cross: Float64Array
    fake_cross: Float64Array

    @classmethod
    def of(cls, real: Features, fake: Features) -> KernelSums:
        """Sum over all pairs of two samples."""
        return cls(own_sums(real), own_sums(fake), *cross_sums(real, fake))

    @property
    def distance(self) -> float:
        """The unbiased MMD²."""
        n, m = len(self.real), len(self.fake)
        return float(
            mean_of_pairs(self.real.sum(), n) + mean_of_pairs(self.fake.sum(), m) - 2 * self.real_cross.sum() / (n * m)
        )

    @property
    def variance(self) -> Variance:
        """The variance of the distance, by leaving out one row at a time (Arvesen 1969)."""
        n, m, cross = len(self.real), len(self.fake), self.real_cross.sum()
        # Twice: row i is in the ordered pairs as the first and as the second.
        real = mean_of_pairs(self.real.sum() - 2 * self.real, n - 1) - 2 * (cross - self.real_cross) / ((n - 1) * m)
        fake = mean_of_pairs(self.fake.sum() - 2 * self.fake, m - 1) - 2 * (cross - self.fake_cross) / ((m - 1) * n)
        return Variance.jackknife(real) + Variance.jackknife(fake)


def mean_of_pairs(total: Float64Array, count: int) -> Float64Array:
    """Return the mean over the count · (count - 1) ordered pairs of different rows."""
    return total / (count * (count - 1))


def kernel_distance(real: Features, fake: Features) -> float:
    """Return the unbiased estimate of MMD² with the kernel (x·y / d + 1)³; it may be negative.

    Memory is bounded; time grows with (n + m)² d. The order of rows changes the last digits only.

    Args:
        real, fake: (n, d) and (m, d), at least 2 rows each.

    Raises:
        ValueError: they cannot be compared.
    """
    return KernelSums.of(*check_pair(real, fake)).distance


def kid(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure the kernel distance of features."""
    features = check_pair(real.features, fake.features, least=3)
    sums = KernelSums.of(*features)
    return {"kid": sums.variance.around(sums.distance, len(sums.fake), "jackknife, one picture at a time", UNBIASED)}


KID = Metric(
    "kid",
    frozenset({"features"}),
    {"kid": "lower"},
    "unbiased MMD² of features, cubic kernel, all pairs (Bińkowski et al. 2018, arXiv:1801.01401)",
    kid,
)
