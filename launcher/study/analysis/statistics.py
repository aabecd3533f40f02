"""The statistics of comparing arms over seeds. Everything works on arrays of studies at once, so it can be simulated.

**The test** of a pair is Student's t on the differences between runs of the same seed. They share the order of the data
and the noise, so they are pairs, and the t-test of their differences holds whatever the two arms' variances and the
correlation between them: it assumes only that the differences are about normal. Where the two arms have no two seeds in
common it is Welch's. The exact sign-flip test assumes symmetry alone and is given beside it, but it cannot be the test:
with n seeds its p is at least 2 / 2ⁿ, 0.25 for 3, so a small study could never separate anything.

**Many pairs**: p-values are stepped down by Holm's method with Shaffer's logical multipliers (Shaffer 1986, JASA 81,
826–831, procedure S1): once one pair of three arms differs, at most one of the other two can be equal. That holds the
probability of any wrong "differs" in a study to α, whichever means are equal. Intervals are Bonferroni's: all of them
hold their truth at once in 95 % of studies. The steps are the stronger of the two, so a pair may be separated although
its interval still touches 0.

**Effect**: mean difference over the spread of a new difference (that of two runs of one new seed). Its exact interval
comes from the noncentral t (Hedges & Olkin 1985, ch. 5), and so does that of the probability that A beats B on a new
seed, which is Φ of it. Hedges' g has no bias, but with one degree of freedom it is 0 whatever was seen, so below two
there is none; the probability is Φ of the median-unbiased effect, which always lies within its interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special, stats

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 1_000
MOST_FLIPPED = 20  # differences: a million ways to give them signs
LEAST_FREEDOM = 2  # of Hedges' g: two pairs have 1, and their g is 0 whatever was seen
FAR = 100.0  # noncentrality: SciPy's inverse loses digits beyond
MOST_T = 1e4  # of |t|: at 2e5 it does not come back

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """What the runs say of A − B: four arrays of the same shape, one element a study.

    Args:
        difference: of the means.
        spread: standard deviation of the difference between two runs of a new seed.
        count: such differences that are worth as much as the runs that there are; with pairs, their number.
        freedom: degrees of freedom of the spread.
    """

    difference: Array
    spread: Array
    count: Array
    freedom: Array

    @property
    def error(self) -> Array:
        """Standard error of the difference."""
        return self.spread / np.sqrt(self.count)

    @property
    def t(self) -> Array:
        """The test's statistic."""
        return self.difference / self.error

    def p(self) -> Array:
        """Return the two-sided p-value, uncorrected."""
        return np.asarray(2 * stats.t.sf(np.abs(self.t), self.freedom))

    def interval(self, alpha: float) -> tuple[Array, Array]:
        """Return the limits of the difference at level 1 − α."""
        half = self.error * stats.t.isf(alpha / 2, self.freedom)
        return self.difference - half, self.difference + half

    def effect(self) -> Array:
        """Return Hedges' g: difference over spread, without the bias of small numbers; 0 at one degree of freedom."""
        half = self.freedom / 2
        correction = np.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / np.sqrt(half)
        return np.asarray(correction * self.difference / self.spread)

    def effect_interval(self, alpha: float) -> tuple[Array, Array]:
        """Return the limits of the effect at level 1 − α: those for which the t that was seen is just not rare."""
        low = noncentrality(self.t, self.freedom, 1 - alpha / 2)
        high = -noncentrality(-self.t, self.freedom, 1 - alpha / 2)
        return low / np.sqrt(self.count), high / np.sqrt(self.count)

    def median_effect(self) -> Array:
        """Return the effect that is too large as often as too small: it lies within every interval."""
        return np.asarray(noncentrality(self.t, self.freedom, 0.5) / np.sqrt(self.count))


def noncentrality(t: Array, freedom: Array, chance: float) -> Array:
    """Return the noncentrality under which a t up to this one has the chance.

    It is the quantile at 1 − chance of t S + Z, where S² is χ² over its degrees of freedom and Z standard normal; far
    from 0, Z does not matter.
    """
    far = t * np.sqrt(special.chdtri(freedom, np.where(t > 0, chance, 1 - chance)) / freedom)
    near = special.nctdtrinc(freedom, chance, np.clip(t, -MOST_T, MOST_T))
    return np.asarray(np.where((np.abs(far) > FAR) | (np.abs(t) > MOST_T), far, near))


def paired(differences: Array) -> Contrast:
    """Compare by the differences within seeds, along the last axis, at least two."""
    n = differences.shape[-1]
    spread = differences.std(-1, ddof=1)
    return Contrast(differences.mean(-1), spread, np.full_like(spread, n), np.full_like(spread, n - 1))


def unpaired(a: Array, b: Array) -> Contrast:
    """Compare runs of different seeds, along the last axis, at least two of each (Welch 1947)."""
    variances = np.stack([a.var(-1, ddof=1), b.var(-1, ddof=1)])
    numbers = np.array([a.shape[-1], b.shape[-1]], float).reshape(2, *[1] * (a.ndim - 1))
    squares = variances / numbers
    # Welch–Satterthwaite.
    freedom = squares.sum(0) ** 2 / (squares**2 / (numbers - 1)).sum(0)
    # Such that the spread over its square root is Welch's standard error.
    count = variances.sum(0) / squares.sum(0)
    return Contrast(a.mean(-1) - b.mean(-1), np.sqrt(variances.sum(0)), count, freedom)


def sign_flip(differences: Array) -> float | None:
    """Return the exact two-sided p-value of differences (n,) under all 2ⁿ signs; None: there are too many."""
    if len(differences) > MOST_FLIPPED:
        return None
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    # The same numbers added in another order differ in their last bits, and count as equal here.
    rounding = 1e-12 * np.abs(differences).sum()
    return float(np.mean(np.abs(sums) >= np.abs(sums[0]) - rounding))


def step_down(p: Array, arms: int) -> Array:
    """Correct the p-values of pairs among `arms`, along the last axis: Holm's steps, Shaffer's multipliers."""
    order = p.argsort(-1)
    scaled = np.take_along_axis(p, order, -1) * multipliers(p.shape[-1], arms)
    corrected = np.empty_like(p)
    # The running maximum: no larger p may come out below a smaller one.
    np.put_along_axis(corrected, order, np.minimum(1, np.maximum.accumulate(scaled, -1)), -1)
    return corrected


def multipliers(tested: int, arms: int) -> Array:
    """Return how many of the tested pairs can still be equal when 0, 1, 2… of them are known to differ."""
    pairs = arms * (arms - 1) // 2
    possible = numbers_of_equal_pairs(arms)
    return np.array([min(tested - i, max(n for n in possible if n <= pairs - i)) for i in range(tested)], float)


@lru_cache
def numbers_of_equal_pairs(arms: int) -> frozenset[int]:
    """Return how many pairs can be equal among arms: of 3, all 3, 1 or 0, but never 2."""
    if arms == 0:
        return frozenset({0})
    sizes = range(1, arms + 1)
    return frozenset(n * (n - 1) // 2 + rest for n in sizes for rest in numbers_of_equal_pairs(arms - n))


def power(effect: float, seeds: Array, freedom: Array, alpha: float) -> Array:
    """Return the chance that the t-test separates arms so far apart, with so many seeds."""
    limit, centre = stats.t.isf(alpha / 2, freedom), abs(effect) * np.sqrt(seeds)
    return np.asarray(stats.nct.sf(limit, freedom, centre))  # the wrong side's share is below α / 2: left out


def seeds_needed(effect: float, per_seed: float, alpha: float) -> int | None:
    """Return the least number of seeds that separates with the wished power; None: below 1,000 there is none.

    Args:
        effect: what is supposed to be true of the arms: difference over spread.
        per_seed: degrees of freedom that each seed beyond the first adds: 1 for pairs.
        alpha: level of the pair.
    """
    seeds = np.arange(2, MOST_SEEDS, dtype=float)
    enough = power(effect, seeds, per_seed * (seeds - 1), alpha) >= POWER
    return int(seeds[enough.argmax()]) if enough.any() else None


def mean_interval(scores: Array) -> tuple[float, float]:
    """Return the 95 % limits of the mean of at least two scores (Student)."""
    half = stats.sem(scores) * stats.t.isf(ALPHA / 2, len(scores) - 1)
    return float(scores.mean() - half), float(scores.mean() + half)


def rate_interval(failed: int, ended: int) -> tuple[float, float]:
    """Return the 95 % limits of a rate (Clopper & Pearson 1934)."""
    limits = stats.binomtest(failed, ended).proportion_ci(1 - ALPHA, "exact")
    return float(limits.low), float(limits.high)


def rates_differ(failed: tuple[int, int], ended: tuple[int, int]) -> float:
    """Return Fisher's exact two-sided p-value for two rates, uncorrected."""
    (a, b), (m, n) = failed, ended
    return float(stats.fisher_exact([[a, m - a], [b, n - b]]).pvalue)
