"""The verdicts on the pairs of a study: tested one by one, judged together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from launcher.study.analysis import statistics
from launcher.study.analysis.statistics import ALPHA, LEAST_FREEDOM, Contrast

SAME = 1e-9  # of the scores: a spread below is rounding
ONE_SEED = "one seed cannot tell chance from difference: at least two are needed"
NO_SPREAD = "the difference is the same for each seed, to the last digits: are they really different runs?"


@dataclass(frozen=True)
class Interval:
    """An estimate with its limits; None where the runs are too few for them."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Effect:
    """An effect with its limits; `value` is None where the degrees of freedom are too few for Hedges' g."""

    value: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """What the runs say of two arms; `a` is the one that is better in what was tested, whatever its other seeds say."""

    a: str
    b: str
    seeds: int
    """That both have; 0: the runs are not paired, and the test is Welch's."""
    difference: Interval
    """Mean of a − b. The intervals of all pairs hold together in 95 % of studies; so do those of the next two."""
    effect: Effect | None = None
    """Hedges' g of the differences, positive where a is better."""
    beats: Interval | None = None
    """The probability that a run of a is better than one of b, both of a new seed: median-unbiased."""
    p: float | None = None
    """Of the t-test, uncorrected."""
    p_corrected: float | None = None
    """For all pairs: THE p-value."""
    p_sign_flip: float | None = None
    """A check that assumes only symmetry, uncorrected; None: not paired, or needless with so many seeds."""
    separated: bool = False
    more_seeds: int | None = None
    """Of each arm, that separate them in 80 % of studies, were the effect what it seems; None: 1,000 would not."""
    refusal: str = ""
    """Why there is no test."""


def judge_pairs(
    couples: Sequence[tuple[str, str]], scores: Mapping[str, Mapping[int, float]], sign: int
) -> tuple[Pair, ...]:
    """Test each pair, and correct for all of them.

    Args:
        couples: of arms, in any order.
        scores: of each arm, by seed.
        sign: 1 where lower is better, −1 where higher is.
    """
    weighed = [contrast_arms(a, b, scores, sign) for a, b in couples]
    tested = [(pair, contrast) for pair, contrast in weighed if contrast is not None]
    if not tested:
        return tuple(pair for pair, _ in weighed)
    p = np.array([contrast.p() for _, contrast in tested])
    corrected = statistics.step_down(p, len({arm for pair, _ in tested for arm in (pair.a, pair.b)}))
    # Bonferroni's level, at which all intervals hold their truth at once.
    alpha = ALPHA / len(tested)
    judged = {
        (pair.a, pair.b): judge_pair(pair, contrast, sign, alpha, float(q))
        for (pair, contrast), q in zip(tested, corrected, strict=True)
    }
    return tuple(judged.get((pair.a, pair.b), pair) for pair, _ in weighed)


def contrast_arms(a: str, b: str, scores: Mapping[str, Mapping[int, float]], sign: int) -> tuple[Pair, Contrast | None]:
    """Contrast two arms: by the seeds that both have, at least two, or else by all the seeds of each.

    The better one of the two comes first: by what is tested, which need not be what all seeds of both say.
    """
    of_a, of_b = scores[a], scores[b]
    common = sorted(of_a.keys() & of_b.keys())
    all_a, all_b = np.array([*of_a.values()]), np.array([*of_b.values()])
    differences = np.array([of_a[seed] - of_b[seed] for seed in common])
    if len(common) > 1:
        contrast = statistics.paired(differences)
        flipped = statistics.sign_flip(differences)
    elif min(len(all_a), len(all_b)) > 1:
        contrast, common, flipped = statistics.unpaired(all_a, all_b), [], None
    else:
        means = Interval(float(all_a.mean() - all_b.mean()))
        return Pair(a, b, len(common), means, refusal=ONE_SEED), None
    # Once more the other way round, so that `a` is the better one.
    if sign * contrast.difference > 0:
        return contrast_arms(b, a, scores, sign)
    difference = Interval(float(contrast.difference))
    # Differences that are all the same would make t infinite, and any pair "separated".
    if contrast.spread <= SAME * np.abs([*all_a, *all_b]).max():
        return Pair(a, b, len(common), difference, refusal=NO_SPREAD), None
    return Pair(a, b, len(common), difference, p_sign_flip=flipped), contrast


def judge_pair(pair: Pair, contrast: Contrast, sign: int, alpha: float, corrected: float) -> Pair:
    """Return a pair with its verdict; its intervals are at level 1 − α."""
    low, high = contrast.interval(alpha)
    # Turned so that positive is better, which may swap the limits.
    ends = np.sort(-sign * np.array(contrast.effect_interval(alpha)))
    effect = -sign * float(contrast.effect()) if contrast.freedom >= LEAST_FREEDOM else None
    beats = norm.cdf([-sign * float(contrast.median_effect()), *ends])
    separated = corrected < ALPHA
    return replace(
        pair,
        difference=Interval(pair.difference.value, float(low), float(high)),
        effect=Effect(effect, *map(float, ends)),
        beats=Interval(*map(float, beats)),
        p=float(contrast.p()),
        p_corrected=corrected,
        separated=separated,
        more_seeds=None if separated else more_seeds(contrast, alpha),
    )


def more_seeds(contrast: Contrast, alpha: float) -> int | None:
    """Return how many more seeds would separate a pair; None: even 1,000 would not.

    Its effect is not Hedges' g: of pairs that were not separated that is too small already, and would ask for too many.
    """
    effect, per_seed = float(contrast.difference / contrast.spread), float(contrast.freedom / (contrast.count - 1))
    needed = statistics.seeds_needed(effect, per_seed, alpha)
    return None if needed is None else max(1, needed - round(float(contrast.count)))
