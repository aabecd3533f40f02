"""Curves of a report: many rows, few points, and a band that hides no extreme of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launcher.pages.axes import Axis
from launcher.pages.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    colour_class,
    dot,
    frame,
    line,
    mark_of,
    outline,
    shorten,
    spread_out,
    svg,
    text,
)
from launcher.pages.markup import Markup, tag
from launcher.pages.numbers import format_number

MOST_POINTS = 160  # of a curve: three pixels each
NAME = 16  # letters of a name at the end of its curve
LETTER = 9.0  # pixels, of a wide font


@dataclass(frozen=True)
class Point:
    """A point of a curve; low and high are the limits of what it stands for."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A curve with its name; `place` gives it its colour and its mark."""

    name: str
    place: int
    points: list[Point]
    limits: bool = False
    """Whether each point has an interval, which is drawn as a bar; else the points have a band."""

    @property
    def style(self) -> str:
        """The class of its colour."""
        return colour_class(self.place)

    @property
    def mark(self) -> str:
        """What stands before its name: who cannot tell the colours goes by it."""
        return mark_of(self.place)


def thin_out(points: Iterable[tuple[float, float]], most: int = MOST_POINTS) -> list[Point]:
    """Return the means of neighbouring points, at most so many, with the least and the largest of each."""
    known = sorted(points)
    size = max(1, -(-len(known) // most))
    bins = [known[k : k + size] for k in range(0, len(known), size)]
    return [
        Point(
            sum(x for x, _ in one) / size_of,
            sum(y for _, y in one) / size_of,
            min(y for _, y in one),
            max(y for _, y in one),
        )
        for one in bins
        for size_of in [len(one)]
    ]


def draw_curves(title: str, below: str, above: str, curves: Sequence[Curve], log: bool | None = False) -> Markup:
    """Draw curves over one axis; none where no curve has two points, and none has an interval.

    Args:
        title: below the figure.
        below, above: name the axes.
        curves: those without points are left out.
        log: whether the vertical axis is logarithmic; None: if the values are wide apart.
    """
    curves = [curve for curve in curves if curve.points]
    if not any(len(curve.points) > 1 or curve.limits for curve in curves):
        return Markup()
    values = [value for curve in curves for point in curve.points for value in (point.low, point.high)]
    names = [f"{curve.mark} {shorten(curve.name, NAME)}" for curve in curves]
    end = RIGHT - LETTER * (1 + max(map(len, names)))
    x = Axis.of([0, *(point.x for curve in curves for point in curve.points)], LEFT, end, log=False)
    y = Axis.of(values, BOTTOM, TOP, log)
    parts = [*frame(x, y, below, above)]
    for curve in curves:
        parts += draw_bars(curve, x, y) if curve.limits else draw_band(curve, x, y)
    for curve in curves:
        shown = outline([(x(point.x), y(point.y)) for point in curve.points])
        parts.append(tag("polyline", points=shown, class_=f"line {curve.style}"))
    ends = spread_out({f"{k}": y(curve.points[-1].y) for k, curve in enumerate(curves)})
    for k, (curve, name) in enumerate(zip(curves, names, strict=True)):
        parts.append(text(end + LETTER, ends[f"{k}"] + 5, name, class_=f"name {curve.style}"))
    told = "; ".join(
        f"{curve.name}: from {format_number(curve.points[0].y)} to {format_number(curve.points[-1].y)}"
        for curve in curves
    )
    return svg(HEIGHT, title, told, *parts)


def draw_band(curve: Curve, x: Axis, y: Axis) -> list[Markup]:
    """Draw from the least to the largest of what each point stands for."""
    if all(point.low == point.high for point in curve.points):
        return []
    edge = [(x(p.x), y(p.low)) for p in curve.points] + [(x(p.x), y(p.high)) for p in reversed(curve.points)]
    return [tag("polygon", points=outline(edge), class_=f"band {curve.style}")]


def draw_bars(curve: Curve, x: Axis, y: Axis) -> list[Markup]:
    """Draw the interval of each point, and a dot that tells its numbers."""
    parts = []
    for p in curve.points:
        told = f"{curve.name}: {format_number(p.y)} ({format_number(p.low)} to {format_number(p.high)}) at {p.x:,.0f}"
        parts += [line(x(p.x), y(p.low), x(p.x), y(p.high), f"thick {curve.style}")]
        parts += [dot(x(p.x), y(p.y), told, curve.style)]
    return parts
