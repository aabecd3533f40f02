"""95 % intervals by the jackknife.

A figure of n pictures is biased in a way that depends on n, so its interval is for its expectation at this n: the mean
over many repetitions of the same evaluation with new pictures. The delete-a-group jackknife (Efron and Stein 1981;
Shao and Tu 1995, §2.3) leaves out one block of the reals together with one of the fakes: no picture is ever counted
twice, where a bootstrap's duplicates shrink covariances and distances to neighbours. Its variance is on average too
large rather than too small (Efron and Stein).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from trainer.metrics.base import Estimate, Float64Array

BLOCKS = 20
LEVEL = 0.95

UNBIASED = "the distance between the distributions"
SAME_SIZE = "the expectation at this sample size"
BY_BLOCKS = "delete-block jackknife, {} blocks of both reals and fakes"


def block_slices(count: int, number: int) -> list[slice]:
    """Cut `count` rows in random order into blocks of nearly the same size."""
    ends = [count * i // number for i in range(number + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def block_number(*counts: int) -> int:
    """Return the number of blocks for samples of these sizes: 20, or fewer so that each block has two rows."""
    return max(2, min(BLOCKS, min(counts) // 2))


@dataclass(frozen=True)
class Variance:
    """An estimated variance and its degrees of freedom."""

    value: float
    freedom: float

    @classmethod
    def jackknife(cls, replicas: Sequence[float] | Float64Array) -> Variance:
        """Return (g - 1) / g Σ (θ₍ⱼ₎ - mean)² of a figure that was computed g times, without another block each."""
        values = np.asarray(replicas, dtype=np.float64)
        g = len(values)
        return cls(float((g - 1) / g * np.square(values - values.mean()).sum()), g - 1)

    @classmethod
    def of_mean(cls, values: Float64Array) -> Variance:
        """Return the variance of the mean of independent values: s² / n."""
        return cls(float(values.var(ddof=1) / len(values)), len(values) - 1)

    def of_share(self, share: float, count: int) -> Variance:
        """Return a variance that is at least that of a share of `count`: where all blocks agree, the jackknife gives 0.

        The lower bound adds two successes and two failures (Agresti and Coull 1998): the variance around the moved
        share, plus the square of the move.
        """
        moved = (share * count + 2) / (count + 4)
        least = moved * (1 - moved) / (count + 4) + (moved - share) ** 2
        return Variance(max(self.value, least), self.freedom)

    def __add__(self, other: Variance) -> Variance:
        """Return the variance of the sum with something independent (Satterthwaite 1946)."""
        total = self.value + other.value
        # Satterthwaite: degrees of freedom of a sum, such that mean and variance of the estimate match.
        weights = self.value**2 / self.freedom + other.value**2 / other.freedom
        return Variance(total, total**2 / weights if weights > 0 else self.freedom + other.freedom)

    def __mul__(self, factor: float) -> Variance:
        """Return the variance after a multiplication by the root of `factor`."""
        return Variance(self.value * factor, self.freedom)

    def around(self, value: float, count: int, method: str, estimand: str = SAME_SIZE) -> Estimate:
        """Return the value with Student's interval."""
        # Student's t, because the variance itself is estimated from few blocks.
        half = float(scipy.special.stdtrit(self.freedom, (1 + LEVEL) / 2)) * self.value**0.5
        return Estimate(value, value - half, value + half, count, method, estimand, LEVEL)
