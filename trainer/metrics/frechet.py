"""Fréchet distance between Gaussians of the same moments as two samples: FID, given features of pictures.

Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500, equation 6. With S = FᵀF on both sides, the eigenvalues of
S₁S₂ are the squared singular values of F₁F₂ᵀ, hence

    d² = |μ₁ - μ₂|² + tr S₁ + tr S₂ - 2 tr (S₁S₂)^½ = |μ₁ - μ₂|² + |F₁|² + |F₂|² - 2 |F₁F₂ᵀ|₊

with Frobenius norms and, last, the nuclear norm: no root of a matrix that is not symmetric, nothing imaginary, and no
small eigenvalue lost to the rounding of its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from trainer.metrics.arrays import check_pair
from trainer.metrics.base import Estimate, Features, Float64Array, Metric, Sample
from trainer.metrics.intervals import BY_BLOCKS, Variance, block_number, block_slices
from trainer.metrics.moments import Moments


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution.

    Args:
        mean: (d,).
        factor: (r, d) of the covariance: FᵀF.
    """

    mean: Float64Array
    factor: Float64Array

    @classmethod
    def of(cls, rows: Features) -> Gaussian:
        """Return the Gaussian of (n, d) rows; if n ≤ d, the centred rows themselves are the factor."""
        if len(rows) > rows.shape[1]:
            return cls.with_moments(Moments.of(rows))
        doubles = rows.astype(np.float64)
        mean = doubles.mean(0)
        # FᵀF is then the unbiased covariance.
        return cls(mean, np.asarray((doubles - mean) / (len(rows) - 1) ** 0.5))

    @classmethod
    def with_moments(cls, moments: Moments) -> Gaussian:
        """Return the Gaussian with these moments; the covariance is unbiased."""
        covariance = torch.from_numpy(moments.covariance)
        lower, failed = torch.linalg.cholesky_ex(covariance)
        if not failed:
            return cls(moments.mean, lower.numpy().T)
        values, vectors = torch.linalg.eigh(covariance)  # Cholesky fails for a covariance of less than full rank
        return cls(moments.mean, (vectors * values.clamp_min(0).sqrt()).numpy().T)

    def distance(self, other: Gaussian) -> float:
        """Return the squared Fréchet distance; at least 0."""
        # |m₁ - m₂|² + tr C₁ + tr C₂ - 2 tr (C₁ C₂)^½, and with C = FᵀF the last trace is |F₁F₂ᵀ|₊.
        # The nuclear norm |F₁F₂ᵀ|₊ is the sum of the singular values.
        common = torch.linalg.svdvals(torch.from_numpy(self.factor @ other.factor.T)).sum().item()
        traces = np.square(self.factor).sum() + np.square(other.factor).sum()
        # Rounding may give a tiny negative number for equal samples.
        return max(0.0, float(np.square(self.mean - other.mean).sum() + traces - 2 * common))


def frechet_distance(real: Features, fake: Features) -> float:
    """Return the squared Fréchet distance, with unbiased covariances (ddof = 1).

    Equal samples give 0 up to some 1e-13 times the trace of their covariance. With few rows it is biased upwards.

    Args:
        real, fake: (n, d) and (m, d), at least 2 rows each; n < d is fine.

    Raises:
        ValueError: they cannot be compared.
    """
    real, fake = check_pair(real, fake)
    return Gaussian.of(real).distance(Gaussian.of(fake))


def leave_out_blocks(rows: Features, number: int) -> Iterator[Gaussian]:
    """Yield the Gaussian of all rows without a block, for each of `number` blocks."""
    wide = len(rows) <= rows.shape[1]
    total = None if wide else Moments.of(rows)
    for block in block_slices(len(rows), number):
        # Subtracting moments is fast; with fewer rows than columns, the factor of the other rows is faster still.
        if total is None:
            yield Gaussian.of(np.delete(rows, block, axis=0))
        else:
            yield Gaussian.with_moments(total - Moments.of(rows[block]))


def frechet_estimate(real: Features, fake: Features) -> tuple[float, Variance]:
    """Return the distance and its variance.

    Args:
        real, fake: (n, d) and (m, d), at least 4 rows each, in random order.

    Raises:
        ValueError: they cannot be compared.
    """
    real, fake = check_pair(real, fake, least=4)
    number = block_number(len(real), len(fake))
    pairs = zip(leave_out_blocks(real, number), leave_out_blocks(fake, number), strict=True)
    return frechet_distance(real, fake), Variance.jackknife([a.distance(b) for a, b in pairs])


def fid(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure the Fréchet distance of features."""
    features = check_pair(real.features, fake.features, least=4)
    value, variance = frechet_estimate(*features)
    method = BY_BLOCKS.format(block_number(*map(len, features)))
    return {"fid": variance.around(value, len(features[1]), method).within(0)}


FID = Metric(
    "fid",
    frozenset({"features"}),
    {"fid": "lower"},
    "squared Fréchet distance of features (Heusel et al. 2017, arXiv:1706.08500)",
    fid,
)
