"""Do the verdicts of `launcher study` keep their promise? `python -m bench.study` simulates studies of known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import tyro
from scipy.stats import binomtest

from bench.measure import table
from launcher.study.analysis.statistics import (
    ALPHA,
    MOST_SEEDS,
    Array,
    Contrast,
    paired,
    seeds_needed,
    step_down,
    unpaired,
)
from trainer.core.randomness import philox

Noise = Callable[[np.random.Generator, tuple[int, ...]], Array]

NOISES: dict[str, Noise] = {
    "normal": lambda draw, shape: draw.normal(size=shape),
    "log-normal": lambda draw, shape: (draw.lognormal(size=shape) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e),
    "heavy tails (t, 3)": lambda draw, shape: draw.standard_t(3, size=shape) / np.sqrt(3),
}

SIZES = ((2, 3), (2, 10), (3, 5), (6, 3), (6, 10))  # arms, seeds


@dataclass(frozen=True)
class Truth:
    """Where scores come from.

    Args:
        means: of the arms.
        spreads: of their noise.
        noise: by its name in NOISES.
        shared: the share of the variance that runs of the same seed have in common.
    """

    means: tuple[float, ...]
    spreads: tuple[float, ...]
    noise: str = "normal"
    shared: float = 0.0

    def draw(self, studies: int, seeds: int, key: int = 0) -> Array:
        """Return (studies, arms, seeds) scores."""
        draw, noise = philox("simulated studies", key, repr(self), seeds), NOISES[self.noise]
        own, common = noise(draw, (studies, len(self.means), seeds)), noise(draw, (studies, 1, seeds))
        scores: Array = np.sqrt(1 - self.shared) * own + np.sqrt(self.shared) * common
        return np.array(self.means)[:, None] + np.array(self.spreads)[:, None] * scores


def contrasts(scores: Array, compare: Callable[[Array, Array], Contrast] = lambda a, b: paired(a - b)) -> Contrast:
    """Contrast all pairs of arms: arrays of (studies, pairs)."""
    found = [compare(scores[:, a], scores[:, b]) for a, b in combinations(range(scores.shape[1]), 2)]
    return Contrast(*(np.stack([getattr(c, name) for c in found], -1) for name in Contrast.__dataclass_fields__))


def differences(truth: Truth) -> Array:
    """Return the true differences of all pairs."""
    return np.array([a - b for a, b in combinations(truth.means, 2)])


def wrong(found: Contrast, truth: Truth, correct: Callable[[Array, int], Array] = step_down) -> Array:
    """Return for each study whether any pair was separated that should not be, or the wrong way round."""
    apart, true = correct(found.p(), len(truth.means)) < ALPHA, differences(truth)
    return np.asarray((apart & (np.sign(found.difference) != np.sign(true))).any(-1))


def covered(found: Contrast, truth: Truth) -> Array:
    """Return for each study whether all intervals of differences hold the truth."""
    true = differences(truth)
    low, high = found.interval(ALPHA / len(true))
    return np.asarray(((low <= true) & (true <= high)).all(-1))


def rate(hits: Array) -> str:
    """Write a share with its Clopper–Pearson interval."""
    limits = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="exact")
    return f"{hits.mean():.1%} ({limits.low:.1%}–{limits.high:.1%})"


def errors(studies: int) -> Iterator[list[str]]:
    """Yield one row a truth: wrong verdicts and coverage."""
    for (noise, widest, shared), (arms, seeds) in product(product(NOISES, (1, 4), (0.0, 0.6)), SIZES):
        truth = Truth((0.0,) * arms, tuple(np.linspace(1, widest, arms)), noise, shared)
        scores = truth.draw(studies, seeds)
        found = contrasts(scores)
        marks = wrong(found, truth), covered(found, truth), wrong(contrasts(scores, unpaired), truth)
        yield [noise, f"1 to {widest}", f"{shared:g}", str(arms), str(seeds), *map(rate, marks)]


def forecasts(studies: int) -> Iterator[list[str]]:
    """Yield how good the forecasts of seeds are: one row a true effect and number of seeds."""
    for effect, seeds in product((0.8, 1.2, 2.0), (3, 5)):
        found = contrasts(Truth((0.0, effect), (0.5**0.5,) * 2).draw(studies, seeds))
        missed = found.p()[:, 0] >= ALPHA
        guesses = [seeds_needed(float(g), 1, ALPHA) or MOST_SEEDS for g in (found.difference / found.spread)[missed, 0]]
        low, middle, high = np.quantile(guesses, [0.25, 0.5, 0.75])
        needed = seeds_needed(effect, 1, ALPHA)
        yield [
            f"{effect:g}",
            str(needed),
            str(seeds),
            f"{1 - missed.mean():.0%}",
            f"{middle:.0f} ({low:.0f}–{high:.0f})",
        ]


def peeking(studies: int) -> float:
    """Return how often equal arms are separated when seeds are added, 3, 5, 8, until they are."""
    scores = Truth((0.0, 0.0), (1.0, 1.0)).draw(studies, 8)
    return float(np.any([contrasts(scores[..., :n]).p()[:, 0] < ALPHA for n in (3, 5, 8)], axis=0).mean())


def main(studies: int = 4_000) -> None:
    """Print the tables."""
    print(f"{studies:,} simulated studies a row; in brackets 95 % binomial limits. In truth all arms are equal.\n")
    told = "any wrong verdict", "all intervals hold", "wrong if not paired"
    table(["noise", "spreads", "shared", "arms", "seeds", *told], errors(studies))
    print("Seeds that 80 % power needs, as forecast by the studies of two arms that did not separate them:\n")
    table(["true effect", "truly needed", "seeds", "separated", "forecast (quartiles)"], forecasts(studies // 4))
    print(f"Seeds added, 3, 5, 8, until equal arms are separated: {peeking(studies):.1%} are.")


if __name__ == "__main__":
    tyro.cli(main)
