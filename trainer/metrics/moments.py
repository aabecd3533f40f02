"""Mean and scatter of rows in float64, which can be computed in pieces, added and subtracted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.metrics.arrays import float64_pieces
from trainer.metrics.base import Features, Float64Array


@dataclass(frozen=True)
class Moments:
    """Moments of `count` rows of d values (Chan, Golub and LeVeque 1983).

    Args:
        count: rows.
        mean: (d,).
        scatter: (d, d), the sum of (x - mean)(x - mean)ᵀ.
    """

    count: int
    mean: Float64Array
    scatter: Float64Array

    @classmethod
    def of(cls, rows: Features) -> Moments:
        """Compute the moments of (n, d) rows, n ≥ 1, piece by piece."""
        total = cls(0, np.zeros(rows.shape[1]), np.zeros((rows.shape[1], rows.shape[1])))
        for piece in float64_pieces(rows):
            mean = piece.mean(0)
            piece -= mean  # centred before the product, which would lose digits to a large mean
            total += cls(len(piece), mean, piece.T @ piece)
        return total

    @property
    def covariance(self) -> Float64Array:
        """The unbiased covariance, (d, d); it needs two rows."""
        return self.scatter / (self.count - 1)

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows together."""
        count, step = self.count + other.count, other.mean - self.mean
        between = np.outer(step, step) * (self.count * other.count / count)
        return Moments(count, self.mean + step * (other.count / count), self.scatter + other.scatter + between)

    def __sub__(self, part: Moments) -> Moments:
        """Return the moments of the rows that are not in a part; at least one row must remain."""
        count = self.count - part.count
        step = (self.mean - part.mean) * (self.count / count)
        between = np.outer(step, step) * (count * part.count / self.count)
        return Moments(count, part.mean + step, self.scatter - part.scatter - between)
