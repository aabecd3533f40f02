"""The figures of a study's page, as SVG: they take their colours from the page, so they follow light and dark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from launcher.pages import drawing
from launcher.pages.axes import Axis
from launcher.pages.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    dot,
    frame,
    line,
    outline,
    ruler,
    shorten,
    spread_out,
    svg,
    text,
)
from launcher.pages.markup import Markup, tag
from launcher.pages.numbers import format_number
from launcher.study.analysis.comparison import Comparison
from launcher.study.analysis.results import Point, Study
from launcher.study.analysis.statistics import mean_interval
from launcher.study.report.words import format_budget, format_estimate


@dataclass(frozen=True)
class Band:
    """A learning curve over the seeds of one arm: the mean, and its 95 % limits where seeds differ."""

    images: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def draw_scores(study: Study, found: Comparison) -> Markup:
    """Draw each run's score as a dot, and each arm's mean with its interval."""
    arms = [summary for summary in found.arms if summary.mean and summary.rung is None]
    values = {arm.arm: study.scores(arm.arm) for arm in arms}
    limits = [x for arm in arms if arm.mean for x in (arm.mean.value, arm.mean.low, arm.mean.high) if x is not None]
    # log=False: on a logarithmic axis intervals of the same width would look different.
    axis = Axis.of([*limits, *(x for of_arm in values.values() for x in of_arm.values())], 20, RIGHT, log=False)
    bottom, parts = 54.0 * len(arms) + 8, list[Markup]()
    for row, arm in enumerate(arms):
        y, style = 54.0 * row + 36, colour_class(study, arm.arm)
        parts.append(text(20, y - 14, f"{mark_of(study, arm.arm)} {arm.arm}", class_=f"name {style}"))
        parts += [
            dot(axis(score), y, f"seed {seed}: {format_number(score)}", style)
            for seed, score in values[arm.arm].items()
        ]
        if arm.mean and arm.mean.low is not None and arm.mean.high is not None:
            parts.append(line(axis(arm.mean.low), y + 11, axis(arm.mean.high), y + 11, f"bold {style}"))
        if arm.mean:
            parts.append(line(axis(arm.mean.value), y + 4, axis(arm.mean.value), y + 18, f"bold {style}"))
    told = "; ".join(f"{arm.arm}: {format_estimate(arm.mean)}" for arm in arms)
    title = f"{study.metric} of each run (dots), mean and its 95 % interval (line)"
    return svg(bottom + 44, title, told, *ruler(axis, 20, bottom, study.metric), *parts)


def draw_curves(study: Study, metric: str) -> Markup:
    """Draw a metric over the images seen: each seed thin, the mean bold, with its band."""
    bands = {arm.name: seed_band(study, arm.name, metric) for arm in study.arms}
    bands = {arm: one for arm, one in bands.items() if one.images}
    runs = [(e.arm, curve_points(e.curve, metric)) for e in study.entries if e.role == "compare"]
    xs, ys = zip(*(point for _, run in runs for point in run), strict=True)
    # 70 pixels are left for the names at the ends of the curves.
    x, y = Axis.of([0, *xs], LEFT, RIGHT - 70, log=False), Axis.of(ys, BOTTOM, TOP)
    parts = [*frame(x, y, "images seen", metric)]
    for arm, one in bands.items():
        edge = [*zip(one.images, one.low, strict=True), *reversed([*zip(one.images, one.high, strict=True)])]
        # A lower limit may be negative, which no logarithmic axis can show; and a wide band must stay in the figure.
        shown = [(x(at), min(max(y(max(value, y.low) if y.log else value), TOP), BOTTOM)) for at, value in edge]
        parts.append(tag("polygon", points=outline(shown), class_=f"band {colour_class(study, arm)}"))
    for arm, run in runs:
        parts.append(
            tag("polyline", points=outline([(x(a), y(b)) for a, b in run]), class_=f"thin {colour_class(study, arm)}")
        )
    for arm, one in bands.items():
        shown = [(x(a), y(b)) for a, b in zip(one.images, one.mean, strict=True)]
        parts.append(tag("polyline", points=outline(shown), class_=f"bold {colour_class(study, arm)}"))
    if study.budget.kind == "images" and x.low <= study.budget.amount <= x.high:
        parts.append(line(x(study.budget.amount), TOP, x(study.budget.amount), BOTTOM, "budget"))
    ends = {arm: y(one.mean[-1]) for arm, one in bands.items()}
    parts += [
        text(RIGHT - 66, at + 4, f"{mark_of(study, arm)} {shorten(arm, 9)}", class_=f"name {colour_class(study, arm)}")
        for arm, at in spread_out(ends).items()
    ]
    told = "; ".join(
        f"{arm}: from {format_number(one.mean[0])} to {format_number(one.mean[-1])}" for arm, one in bands.items()
    )
    title = f"{metric} while training, by images seen. Budget: {format_budget(study.budget)} a run"
    return svg(HEIGHT, title, told, *parts)


def draw_cost(study: Study, found: Comparison) -> Markup:
    """Draw each arm's mean score over what a run costs."""
    arms = [(arm, arm.mean, arm.node_hours) for arm in found.arms if arm.mean and arm.node_hours and arm.rung is None]
    limits = [x for _, mean, _ in arms for x in (mean.value, mean.low, mean.high) if x is not None]
    x, y = Axis.of([hours for *_, hours in arms], LEFT, RIGHT - 40), Axis.of(limits, BOTTOM, TOP, log=False)
    parts = [*frame(x, y, "node-hours of a run", study.metric)]
    for arm, mean, hours in arms:
        style = colour_class(study, arm.arm)
        if mean.low is not None and mean.high is not None:
            parts.append(line(x(hours), y(mean.low), x(hours), y(mean.high), f"bold {style}"))
        parts.append(text(x(hours), y(mean.value) + 5, mark_of(study, arm.arm), class_=f"mark {style}"))
    names = spread_out({arm.arm: y(mean.value) for arm, mean, _ in arms})
    for arm, _, hours in arms:
        side, shift = ("start", 10) if x(hours) < 300 else ("end", -10)
        style = f"name {colour_class(study, arm.arm)}"
        parts.append(text(x(hours) + shift, names[arm.arm] + 4, shorten(arm.arm, 20), class_=style, text_anchor=side))
    told = "; ".join(f"{arm.arm}: {hours:.3g} node-hours, {format_estimate(mean)}" for arm, mean, hours in arms)
    return svg(HEIGHT, f"{study.metric} (mean, 95 % interval) over the cost of a run", told, *parts)


def seed_band(study: Study, arm: str, metric: str) -> Band:
    """Bring the curves of one arm's seeds together, where at least half of them have a point."""
    at: dict[int, list[float]] = defaultdict(list)
    entries = [entry for entry in study.of(arm) if curve_points(entry.curve, metric)]
    for entry in entries:
        for images, value in curve_points(entry.curve, metric):
            at[images].append(value)
    kept = {images: np.array(values) for images, values in sorted(at.items()) if 2 * len(values) >= len(entries)}
    ends = [mean_interval(v) if len(v) > 1 else (v.mean(), v.mean()) for v in kept.values()]
    mean = [float(v.mean()) for v in kept.values()]
    return Band([*kept], mean, [float(low) for low, _ in ends], [float(high) for _, high in ends])


def curve_points(curve: Sequence[Point], metric: str) -> list[tuple[int, float]]:
    """Return where a metric was measured on a curve."""
    return [(point.images_seen, point.metrics[metric]) for point in curve if metric in point.metrics]


def colour_class(study: Study, arm: str) -> str:
    """Return the class of an arm's colour: the same in all figures."""
    return drawing.colour_class(arm_index(study, arm))


def mark_of(study: Study, arm: str) -> str:
    """Return an arm's mark: who cannot tell the colours goes by it."""
    return drawing.mark_of(arm_index(study, arm))


def arm_index(study: Study, arm: str) -> int:
    """Return which of the arms it is."""
    return [one.name for one in study.arms].index(arm)
