"""What may be concluded from a study: each arm's mean, each pair's verdict, and no more ranking than they allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from launcher.study.analysis import statistics
from launcher.study.analysis.pairs import Interval, Pair, judge_pairs
from launcher.study.analysis.ranking import group_letters, rank_arms
from launcher.study.analysis.results import Entry, Study
from launcher.study.analysis.statistics import ALPHA


@dataclass(frozen=True)
class ArmSummary:
    """What the runs of one arm say."""

    arm: str
    seeds: tuple[int, ...]
    """Of the finished runs with a score."""
    mean: Interval | None
    """Of their scores; its 95 % interval is for this arm alone."""
    spread: float | None
    """Standard deviation from seed to seed."""
    failed: int
    ended: int
    """Failed and finished runs."""
    unfinished: int
    """Runs that wait or train."""
    failure_rate: Interval | None
    """With Clopper and Pearson's 95 % limits."""
    images_per_s: float | None
    """Of training, all attempts together."""
    hours: float | None
    """Of training, of the mean finished run."""
    node_hours: float | None
    """The same, times nodes."""
    flops: float | None
    """Of the mean finished run."""
    rung: int | None = None
    """Where it was left behind, counted from 1."""
    letters: str = ""
    """Two arms that share a letter cannot be separated."""


@dataclass(frozen=True)
class FailurePair:
    """Two arms of which one failed more often."""

    often: str
    seldom: str
    p_corrected: float
    """Fisher's exact test, corrected for all pairs."""


@dataclass(frozen=True)
class Comparison:
    """The answer of a study.

    Args:
        arms: the best mean first, though none before an arm that is better than it; then those without a mean, then
            those left behind at a rung.
        pairs: of the arms with a mean.
        failures: pairs of arms whose failure rates differ.
    """

    arms: tuple[ArmSummary, ...]
    pairs: tuple[Pair, ...]
    failures: tuple[FailurePair, ...]

    def pair(self, a: str, b: str) -> Pair | None:
        """Return the pair of two arms, in whichever order."""
        return next((pair for pair in self.pairs if {pair.a, pair.b} == {a, b}), None)

    @property
    def tested(self) -> list[str]:
        """The arms that could be tested against another, in the order of `arms`."""
        tested = {arm for pair in self.pairs if not pair.refusal for arm in (pair.a, pair.b)}
        return [summary.arm for summary in self.arms if summary.arm in tested]

    @property
    def unbeaten(self) -> list[str]:
        """The tested arms that no other is better than."""
        beaten = {pair.b for pair in self.pairs if pair.separated}
        return [arm for arm in self.tested if arm not in beaten]


def compare_arms(study: Study) -> Comparison:
    """Conclude."""
    sign = 1 if study.better == "lower" else -1
    left = {arm.name: study.left_at(arm.name) for arm in study.arms}
    # Arms that were left behind have used less of the budget: their scores compare with nobody's.
    scores = {arm: study.scores(arm) for arm, rung in left.items() if rung is None}
    means = {arm: float(np.mean([*found.values()])) for arm, found in scores.items() if found}
    by_mean = sorted(means, key=lambda arm: sign * means[arm])
    pairs = judge_pairs([*combinations(by_mean, 2)], scores, sign)
    apart = {(pair.a, pair.b) for pair in pairs if pair.separated}
    ranked = rank_arms(by_mean, apart)
    tested = [arm for arm in ranked if any(arm in (pair.a, pair.b) and not pair.refusal for pair in pairs)]
    marks = group_letters(tested, apart)
    order = [*ranked, *(arm for arm in scores if arm not in means), *(arm for arm, rung in left.items() if rung)]
    arms = [replace(summarize_arm(study, arm), letters=marks.get(arm, "")) for arm in order]
    return Comparison(tuple(arms), pairs, failure_pairs(arms))


def summarize_arm(study: Study, arm: str) -> ArmSummary:
    """Sum up one arm's runs."""
    entries, found = [*study.of(arm)], study.scores(arm)
    rung = study.left_at(arm)
    finished = [entry for entry in entries if entry.status == "finished"]
    failed = sum(entry.status == "failed" for entry in entries)
    ended = failed + len(finished)
    scores, many = np.array([*found.values()]), len(found) > 1
    seconds = sum(entry.seconds for entry in entries)
    return ArmSummary(
        arm=arm,
        seeds=tuple(found),
        mean=Interval(scores.mean().item(), *(statistics.mean_interval(scores) if many else ())) if found else None,
        spread=scores.std(ddof=1).item() if many else None,
        failed=failed,
        ended=ended,
        unfinished=sum(entry.status in ("waiting", "running") for entry in entries),
        failure_rate=Interval(failed / ended, *statistics.rate_interval(failed, ended)) if ended else None,
        images_per_s=sum(entry.images_seen for entry in entries) / seconds if seconds else None,
        hours=mean_of(finished, lambda entry: entry.seconds / 3600),
        node_hours=mean_of(finished, lambda entry: entry.node_seconds / 3600),
        flops=mean_of(finished, lambda entry: entry.flops),
        rung=study.rungs.index(rung) + 1 if rung else None,
    )


def mean_of(entries: Sequence[Entry], figure: Callable[[Entry], float | None]) -> float | None:
    """Return the mean of a figure over the runs that have it."""
    known = [value for entry in entries if (value := figure(entry)) is not None]
    return float(np.mean(known)) if known else None


def failure_pairs(arms: Sequence[ArmSummary]) -> tuple[FailurePair, ...]:
    """Return the pairs of arms whose failure rates differ, the surest first."""
    ended = [arm for arm in arms if arm.ended]
    couples = [sorted(pair, key=lambda arm: -arm.failed / arm.ended) for pair in combinations(ended, 2)]
    if not couples:
        return ()
    # All pairs, also those that look equal: the correction is for as many as might have been called different.
    p = np.array([statistics.rates_differ((a.failed, b.failed), (a.ended, b.ended)) for a, b in couples])
    corrected = zip(couples, statistics.step_down(p, len(ended)), strict=True)
    found = [FailurePair(a.arm, b.arm, float(q)) for (a, b), q in corrected if q < ALPHA]
    return tuple(sorted(found, key=lambda pair: pair.p_corrected))
