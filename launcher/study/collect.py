"""From the run folders of a study to its results: what each run used, and what it was measured to be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from launcher.jobs import runs
from launcher.jobs.attempts import Cause, to_seconds
from launcher.jobs.runs import SlurmQueue
from launcher.status.attempts import RunAttempt, merge_attempts
from launcher.study.analysis import results
from launcher.study.analysis.results import Arm, Budget, Entry, Evaluation, Made, Point, Rung, Score
from launcher.study.plan import StudyPlan, StudyTask
from launcher.study.run_progress import TaskProgress, task_progress
from launcher.study.speed import rows_by_attempt
from trainer.core.advice import command
from trainer.runs.run_folder import RunFolder

Figures = Mapping[str, Any]


def collect_results(plan: StudyPlan) -> results.Study:
    """Return what is known by now. An arm whose speed could not be told is there by that one run, which has failed."""
    settings, queue = plan.settings, SlurmQueue()
    entries, rungs, measured = dict[RunFolder, Entry](), list[Rung](), list[Figures]()
    for stage in plan.stages():
        found = [task_progress(plan, task, queue) for task in stage]
        entries |= {one.task.run: entry_of(plan, one) for one in found if one.task.seed_set or one.status == "failed"}
        measured += [figures for one in found if (figures := plan.figures(one.task))]
        # What the later stages are follows from the scores of this one, which are not all there.
        if any(one.status in ("running", "waiting") for one in found):
            break
        if found and found[0].task.seed_set == "select":
            kept = tuple(plan.who_goes_on(stage))
            rungs.append(Rung(settings.budget.amount * settings.shares[len(rungs)], plan.means(stage), kept))
            for one in found:
                if one.status == "finished" and one.task.arm not in kept:
                    reason = f"its arm was left behind at rung {len(rungs)}"
                    entries[one.task.run] = replace(entries[one.task.run], status="stopped-by-halving", reason=reason)
    return results.Study(
        settings.name,
        next(
            (column for figures in reversed(measured) if (column := plan.deciding_column(figures))),
            settings.evaluation.metric,
        ),
        settings.better,
        Budget(settings.budget.kind, settings.budget.amount),
        evaluation_of(plan, measured[-1] if measured else {}),
        tuple(Arm(name, arm.recipe, dict(as_options(arm.settings))) for name, arm in settings.arms.items()),
        tuple(entries.values()),
        Made(version("lienzo"), command("launcher", "study", plan.folder.path)),
        tuple(rungs),
    )


def evaluation_of(plan: StudyPlan, figures: Figures) -> Evaluation:
    """Return how the figure that decides is measured, as one of the measurements says."""
    asked = plan.settings.evaluation
    decides = figures.get("figures", {}).get(plan.deciding_column(figures), {})
    floor = decides.get("floor")
    return Evaluation(
        figures.get("extractor") or asked.extractor or "the default extractor",
        decides.get("count", asked.num_samples),
        "report",
        finite_or_none(floor["value"]) if floor else None,
    )


def entry_of(plan: StudyPlan, one: TaskProgress) -> Entry:
    """Return what a run used and what it was measured to be."""
    task, run = one.task, one.task.run
    events = [row for row in runs.rows_of(run.events) if {"kind", "time"} <= row.keys()]
    attempts = merge_attempts(runs.attempts_of(run), events)
    spent = list(attempt_times(run, attempts))
    measured = {name: score for name, figure in figures_of(plan, task).items() if (score := as_score(figure))}
    column = plan.deciding_column(plan.figures(task) or {})
    broken_off = [attempt.cause for attempt in attempts[:-1] if attempt.cause not in (None, Cause.FINISHED)]
    grids = [path for _, path in run.sample_grids()]
    score = measured.get(column)
    # Left out in silence, it would flatter its arm: a run whose pictures cannot be measured has failed.
    status = "failed" if one.status == "finished" and score is None else one.status
    return Entry(
        arm=task.arm,
        seed=task.seed,
        run=str(run.path.relative_to(plan.folder.path)),
        status=status,
        role="select" if task.seed_set == "select" else "compare",
        reason=one.reason if status == one.status else f"{plan.settings.evaluation.metric} could not be measured",
        images_seen=one.images,
        seconds=round(sum(s for s, _ in spent), 3),
        node_seconds=round(sum(s * nodes for s, nodes in spent), 3),
        flops=one.images * plan.costs[task.arm].flops_per_image,
        restarts=len(broken_off),
        preemptions=broken_off.count(Cause.PREEMPTED),
        curve=tuple(learning_curve(run)),
        score=score,
        figures={name: value for name, value in measured.items() if name != column},
        grid=str(grids[-1].relative_to(plan.folder.path)) if grids else None,
    )


def figures_of(plan: StudyPlan, task: StudyTask) -> Figures:
    """Return all figures of a task's run by their columns; none where it is not measured."""
    return dict((plan.figures(task) or {}).get("figures", {}))


def attempt_times(run: RunFolder, attempts: Sequence[RunAttempt]) -> Iterator[tuple[float, int]]:
    """Yield for each attempt the seconds of its training, up to its last row, and the nodes that it had."""
    for *_, row in rows_by_attempt(runs.rows_of(run.system)):
        before = [attempt for attempt in attempts if to_seconds(attempt.began) <= row["time"]]
        # An attempt on one machine is in no record of a job, and names no nodes.
        yield row["elapsed_s"], max(1, len(before[-1].nodes)) if before else 1


def learning_curve(run: RunFolder) -> Iterator[Point]:
    """Yield what was measured along the way: the distance beside each grid, and all evaluations."""
    found: dict[int, dict[str, float]] = {}
    for row in runs.rows_of(run.metrics):
        for name, value in row.items():
            if name.startswith("swd_") and finite_or_none(value) is not None:
                found.setdefault(row["images_seen"], {})[name] = value
    for row in runs.rows_of(run.evaluations):
        for name, figure in row.get("figures", {}).items():
            if finite_or_none(figure["value"]) is not None:
                found.setdefault(row["images_seen"], {})[name] = float(figure["value"])
    yield from (Point(images, found[images]) for images in sorted(found))


def as_score(figure: Figures) -> Score | None:
    """Return a figure with its interval; None: it is no number. An interval without an end is as wide as nothing."""
    value, low, high = (finite_or_none(figure[name]) for name in ("value", "low", "high"))
    return None if value is None else Score(value, value if low is None else low, value if high is None else high)


def finite_or_none(value: object) -> float | None:
    """Return a number; None in place of NaN and infinities, which JSON writes by their names."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def as_options(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield settings as the command line writes them."""
    for name, value in settings.items():
        dotted = f"{prefix}{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            yield from as_options(value, f"{dotted}.")
        else:
            yield f"--{dotted}", str(value)
