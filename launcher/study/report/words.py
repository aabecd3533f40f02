"""What a study found, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from launcher.pages.numbers import format_number
from launcher.study.analysis.comparison import ArmSummary, Comparison
from launcher.study.analysis.pairs import Effect, Interval, Pair
from launcher.study.analysis.results import Budget, Study
from launcher.study.analysis.statistics import MOST_SEEDS
from trainer.tracking.console import format_duration

METHOD = (
    (
        "Test",
        "Runs of the same seed share the order of the data and the noise, so a pair of arms is judged by differences "
        "within a seed: Student's t-test. It assumes that these differences are about normal, and nothing of the arms' "
        "variances. Where two arms share fewer than two seeds it is Welch's test.",
    ),
    (
        "Many pairs",
        "p-values are stepped down (Holm, with Shaffer's multipliers): the chance of any wrong “better” is at "
        "most 5 %, unless scores are strongly skewed and their spread differs between arms (simulated: up to 13 %). "
        "The intervals of all pairs hold together in 95 % of studies. The test is a little stronger, so a pair can be "
        "separated although its interval touches 0.",
    ),
    (
        "Check",
        "The sign-flip test needs no normal distribution, but with n seeds its p is at least 2 / 2ⁿ (0.25 for 3, 0.06 "
        "for 5), and it is not corrected: it is a check, not the test.",
    ),
    (
        "Seeds",
        "How many seeds there are should be decided before. Adding some until a pair is separated raises the error "
        "rate. Forecasts of how many more would do it are rough: they take the effect that was seen for the true one.",
    ),
)


def headline(study: Study, found: Comparison) -> str:
    """Return the answer in one sentence."""
    if len(study.arms) < 2:
        return "One arm: there is nothing to compare it with."
    if not found.tested:
        return "Nothing can be compared yet: no two arms have two finished runs each."
    best, tested = found.unbeaten, found.tested
    if len(best) == len(tested):
        return f"{join_names(tested)} cannot be separated: no ranking." if len(best) > 1 else f"{best[0]} stands alone."
    if not best:
        return "Each arm is worse than another on the seeds that those two share: no ranking."
    beaten = [pair for pair in found.pairs if pair.a == best[0] and pair.separated]
    if len(best) == 1 and len(beaten) == len(tested) - 1:
        rest = "each of the others" if len(beaten) > 1 else beaten[0].b
        return f"{best[0]} is better than {rest} ({p_value(max(p_of(pair) for pair in beaten))})."
    if len(best) == 1:
        return f"No arm is better than {best[0]}, but it cannot be separated from each of the others."
    return f"{join_names(best)} lead: no arm is better than these, and they cannot be separated from each other."


def findings(study: Study, found: Comparison) -> Iterator[str]:
    """Yield what else must be known, the most important first."""
    if left := sum(summary.unfinished for summary in found.arms):
        yield f"Not finished: {left} of {len(study.entries)} runs wait or train. The rest is of those that are done."
    for summary in found.arms:
        if beaten := [pair for pair in found.pairs if pair.a == summary.arm and pair.separated]:
            p, worse = p_value(max(p_of(pair) for pair in beaten)), join_names([pair.b for pair in beaten])
            yield f"{summary.arm} is better than {worse} ({p}, corrected for all pairs)."
    means = {summary.arm: summary.mean.value for summary in found.arms if summary.mean}
    sign = 1 if study.better == "lower" else -1
    for pair in found.pairs:
        if pair.separated and sign * means[pair.a] > sign * means[pair.b]:
            yield (
                f"{pair.b} has the better mean over all its seeds, but {pair.a} is better on the {pair.seeds} "
                "that both have, and that is what is tested."
            )
        if not pair.separated:
            yield f"{pair.a} and {pair.b} cannot be separated: {describe_remedy(pair)}."
    for rates in found.failures:
        yield f"{rates.often} fails more often than {rates.seldom} ({p_value(rates.p_corrected)}, Fisher, corrected)."
    if failed := [f"{s.failed} of {s.ended} of {s.arm}" for s in found.arms if s.failed]:
        often = join_names(failed)
        yield f"Runs failed: {often}. Means are over the runs that finished, so they flatter arms that fail."
    for place, rung in enumerate(study.rungs, start=1):
        if gone := [arm for arm in rung.scores if arm not in rung.kept]:
            used = format_budget(Budget(study.budget.kind, rung.amount))
            yield (
                f"Left behind at rung {place}, after {used} a run: {join_names(gone)}. Runs of other seeds decided "
                "that, and less of the budget was used: these arms are not ranked against the rest."
            )


def describe_remedy(pair: Pair) -> str:
    """Say what would separate a pair."""
    if pair.refusal:
        return pair.refusal
    if pair.more_seeds is None:
        return f"at the difference seen, fewer than {MOST_SEEDS:,} seeds would not do it"
    more = "1 more seed" if pair.more_seeds == 1 else f"{pair.more_seeds} more seeds"
    return f"at the difference seen, about {more} of each would (with 80 % power)"


def p_of(pair: Pair) -> float:
    """Return the corrected p-value of a pair that was tested."""
    assert pair.p_corrected is not None
    return pair.p_corrected


def p_value(p: float) -> str:
    """Write a p-value."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def format_estimate(estimate: Interval | Effect | None, signed: bool = False) -> str:
    """Write an estimate with its limits, to the digits that they allow."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return format_number(estimate.value, signed=signed)
    width = estimate.high - estimate.low
    low, high = (format_number(x, width, signed) for x in (estimate.low, estimate.high))
    if estimate.value is None:
        return f"– ({low} to {high})"
    return f"{format_number(estimate.value, width, signed)} ({low} to {high})"


def format_share(estimate: Interval | None) -> str:
    """Write a share with its limits."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return "–"
    return f"{estimate.value:.0%} ({estimate.low:.0%} to {estimate.high:.0%})"


def format_budget(budget: Budget) -> str:
    """Write a budget."""
    if budget.kind == "seconds":
        return f"{format_duration(budget.amount)} of training"
    return f"{budget.amount:,.0f} images" if budget.kind == "images" else f"{budget.amount:.3g} FLOPs"


def format_speed(summary: ArmSummary) -> str:
    """Write images a second."""
    return "–" if summary.images_per_s is None else f"{summary.images_per_s:,.1f}"


def join_names(names: Sequence[str]) -> str:
    """Write A, B and C."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def describe_method(study: Study) -> Iterator[tuple[str, str]]:
    """Yield how everything was measured: what, and how."""
    how = study.evaluation
    yield "Budget", f"{format_budget(study.budget)} a run. Only runs that used all of it are compared."
    yield "Metric", f"{study.metric}: {study.better} is better. It was chosen before, and it alone is tested."
    yield "Extractor", how.extractor
    yield "Samples", f"{how.num_samples:,} pictures of each side, painted from the seed set “{how.seed_set}”."
    floor = "not measured" if how.floor is None else format_number(how.floor)
    yield "Floor", f"{floor}: what the data scores against itself at this number of pictures."
    yield from METHOD
