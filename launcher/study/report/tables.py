"""The tables of a study's page."""

from __future__ import annotations

from launcher.pages.markup import Markup, join, tag
from launcher.pages.numbers import format_hours, format_number
from launcher.pages.tables import build_table, lines_cell
from launcher.study.analysis.comparison import ArmSummary, Comparison
from launcher.study.analysis.pairs import Effect, Interval, Pair
from launcher.study.analysis.results import Budget, Study
from launcher.study.report import words
from launcher.study.report.words import format_estimate, format_share, p_value


def limits_cell(estimate: Interval | Effect | None, signed: bool = False) -> Markup:
    """Return a cell with an estimate, and its limits below it."""
    return lines_cell(*format_estimate(estimate, signed).split(" ", 1))


def share_cell(estimate: Interval | None, before: str = "") -> Markup:
    """Return a cell with a share, and its limits below it."""
    value, *ends = format_share(estimate).split(" ", 1)
    return lines_cell(before + value if ends else value, *ends)


def arms_table(study: Study, found: Comparison) -> Markup:
    """Return what each arm is, scored and cost."""
    arms = {arm.name: arm for arm in study.arms}

    def row(summary: ArmSummary) -> list[str | Markup]:
        arm = arms[summary.arm]
        what = lines_cell(arm.recipe, *(f"{name} {value}" for name, value in arm.settings.items()))
        failed = share_cell(summary.failure_rate, f"{summary.failed} of {summary.ended}, ")
        return [
            summary.arm,
            limits_cell(summary.mean) if summary.rung is None else f"left behind at rung {summary.rung}",
            summary.letters or "–",
            "–" if summary.spread is None else format_number(summary.spread),
            str(len(summary.seeds)) + (f" (+{summary.unfinished})" if summary.unfinished else ""),
            failed,
            words.format_speed(summary),
            format_hours(summary.hours),
            format_hours(summary.node_hours),
            "–" if summary.flops is None else f"{summary.flops:.2e}",
            what,
        ]

    caption = (
        f"{study.metric} ({study.better} is better): mean over seeds and its 95 % interval. Arms that share a letter "
        "cannot be separated. Speed and cost are of training."
    )
    header = (
        "Arm",
        "Mean",
        "Group",
        "Spread",
        "Seeds",
        "Failed",
        "Images/s",
        "Time a run",
        "Node time",
        "FLOPs",
        "Recipe",
    )
    return build_table(caption, header, [row(summary) for summary in found.arms])


def pair_matrix(found: Comparison) -> Markup:
    """Return each arm against each: better, worse, or not to be separated."""
    names = [summary.arm for summary in found.arms if summary.mean and summary.rung is None]
    rows = [[a, *(verdict_cell(found.pair(a, b), a) for b in names)] for a in names]
    return build_table("Is the arm of the row better than that of the column?", ("", *names), rows)


def verdict_cell(pair: Pair | None, arm: str) -> Markup:
    """Return the cell of a pair, from the side of one of its arms."""
    if pair is None:
        return tag("td", "–", class_="none")
    if pair.p_corrected is None:
        return tag("td", "no test", class_="none")
    said, style = ("better" if arm == pair.a else "worse", "tight") if pair.separated else ("?", "tight none")
    return tag(
        "td", said, tag("br"), tag("small", p_value(pair.p_corrected)), class_=f"{style} {said.strip('?')}".strip()
    )


def pairs_table(study: Study, found: Comparison) -> Markup:
    """Return the figures of each pair."""

    def row(pair: Pair) -> list[str | Markup]:
        name = f"{pair.a} − {pair.b}"
        if pair.refusal:
            return [name, limits_cell(pair.difference, signed=True), tag("td", pair.refusal, colspan="6")]
        more = "–" if pair.separated else "1,000 or more" if pair.more_seeds is None else str(pair.more_seeds)
        return [
            name,
            limits_cell(pair.difference, signed=True),
            tag("td", p_value(words.p_of(pair)).removeprefix("p = ").removeprefix("p "), class_="tight"),
            "–" if pair.p_sign_flip is None else f"{pair.p_sign_flip:.3g}",
            limits_cell(pair.effect, signed=True),
            share_cell(pair.beats),
            str(pair.seeds) if pair.seeds else "not paired",
            more,
        ]

    caption = (
        f"Difference of {study.metric}, with intervals that hold together. p: corrected for all pairs. Effect: Hedges' "
        "g (two seeds give its interval only). Chance: that the first arm beats the second on a new seed."
    )
    header = ("Pair", "Difference", "p", "Sign-flip p", "Effect", "Chance", "Seeds", "More seeds needed")
    return build_table(caption, header, [row(pair) for pair in found.pairs])


def rungs_table(study: Study) -> Markup:
    """Return who was left behind, and why."""
    rows = [
        [
            f"{place}: {arm}",
            words.format_budget(budget),
            "–" if score is None else format_number(score),
            "goes on" if on else "left",
        ]
        for place, rung in enumerate(study.rungs, start=1)
        for budget in [Budget(study.budget.kind, rung.amount)]
        for arm, score in rung.scores.items()
        for on in [arm in rung.kept]
    ]
    caption = "Scores of the runs that only decide who goes on: they flatter the chosen, and are not compared."
    return build_table(caption, ("Rung", "Budget used", study.metric, "Verdict"), rows)


def failures_table(study: Study) -> Markup:
    """Return each failed run with its reason, and how often runs were interrupted."""
    failed = [entry for entry in study.entries if entry.status == "failed"]
    rows = [[f"{e.arm}, seed {e.seed}", e.reason or "no reason is known", f"{e.images_seen:,}", e.run] for e in failed]
    again, preempted = sum(e.restarts for e in study.entries), sum(e.preemptions for e in study.entries)
    told = (
        f"{len(failed)} of {len(study.entries)} runs failed. Runs were started again {again} times, {preempted} of them"
    )
    note = tag(
        "p", f"{told} after a preemption; an interrupted run gives the same bits as one that was not.", class_="note"
    )
    listed = (
        build_table("Runs that failed, and why", ("Run", "Reason", "Images seen", "Folder"), rows) if rows else Markup()
    )
    return join(note, listed)
