"""What was measured of the pictures: each figure with its interval, and how it went while training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.pages.document import figure_row
from launcher.pages.markup import Markup, tag
from launcher.pages.numbers import format_number
from launcher.pages.tables import build_table, lines_cell
from launcher.report.curves import Curve, Point, draw_curves, thin_out
from launcher.report.run_facts import RunFacts, is_number, points_of
from trainer.core.advice import command

BETTER = {"lower": "lower is better", "higher": "higher is better", "data": "as the floor is best"}
SETS = {"report": "to report", "select": "to choose a checkpoint"}
NOTE = (
    "Floor: what real pictures score against real ones. By its name a figure tells its number of pictures and its "
    "extractor: only the same compare. Figures to choose a checkpoint by flatter the one that they chose."
)


@dataclass(frozen=True)
class Measurement:
    """A figure of a checkpoint; low and high are its value where it has no interval."""

    facts: RunFacts
    column: str
    seed_set: str
    images_seen: int
    value: float
    low: float
    high: float
    floor: float | None
    count: int
    better: str


def measurements(facts: RunFacts) -> Iterator[Measurement]:
    """Yield what was measured of a run; of a figure that was measured again, the newest."""
    found: dict[tuple[Any, ...], Measurement] = {}
    for row in facts.evaluations:
        seed_set, images_seen = str(row.get("seed_set", "report")), int(row["images_seen"])
        for column, figure in row["figures"].items():
            value, low, high = (figure.get(name) for name in ("value", "low", "high"))
            if not is_number(value):
                continue
            floor = (figure.get("floor") or {}).get("value")
            found[column, seed_set, images_seen] = Measurement(
                facts,
                column,
                seed_set,
                images_seen,
                float(value),
                float(low) if is_number(low) else float(value),
                float(high) if is_number(high) else float(value),
                float(floor) if is_number(floor) else None,
                int(figure.get("count", 0)),
                str(figure.get("better", "")),
            )
    yield from found.values()


def evaluation_parts(found: Sequence[RunFacts]) -> list[Markup]:
    """Return the newest figures as a table, and how they went."""
    known = [one for facts in found for one in measurements(facts)]
    drawn = figure_row([*figures_of(found, known), *distances(found)])
    if not known:
        path = found[0].run.path if len(found) == 1 else "RUN"
        hint = f"Nothing was measured of checkpoints. Measure the newest: {command('trainer', 'evaluate', path)}"
        return [tag("p", hint, class_="note"), drawn]
    return [newest_table(found, known), tag("p", NOTE, class_="note"), drawn]


def newest_table(found: Sequence[RunFacts], known: Sequence[Measurement]) -> Markup:
    """Return the newest measurement of each figure: a row for each, a column for each run."""
    newest: dict[tuple[str, str], dict[str, Measurement]] = {}
    for one in sorted(known, key=lambda one: one.images_seen):
        newest.setdefault((one.column, one.seed_set), {})[one.facts.name] = one
    # What is there to be reported comes first.
    ordered = sorted(newest.items(), key=lambda item: (item[0][1] != "report", item[0][0]))
    rows = []
    for (column, seed_set), by_run in ordered:
        first = next(iter(by_run.values()))
        cells = [measured_cell(by_run.get(facts.name)) for facts in found]
        floor = "–" if first.floor is None else format_number(first.floor)
        rows.append(
            [
                short_name(column),
                *cells,
                floor,
                BETTER.get(first.better, ""),
                SETS.get(seed_set, seed_set),
                column,
            ]
        )
    names = [facts.name for facts in found] if len(found) > 1 else ["Value"]
    header = ("Figure", *names, "Floor", "Better", "Seeds", "In full")
    return build_table("The newest measurements, with 95 % intervals", header, rows)


def measured_cell(one: Measurement | None) -> Markup:
    """Return a value with its interval, and the checkpoint that it is of."""
    if one is None:
        return lines_cell("–")
    width = one.high - one.low
    limits = [f"{format_number(one.low, width)} to {format_number(one.high, width)}"] if width else []
    return lines_cell(format_number(one.value, width), *limits, f"at {one.images_seen:,} images")


def short_name(column: str) -> str:
    """Return what stands before the extractor in the name of a figure."""
    return column.partition("/")[0]


def figures_of(found: Sequence[RunFacts], known: Sequence[Measurement]) -> Iterator[Markup]:
    """Yield a figure for each column that was measured more than once, with the intervals."""
    for column in dict.fromkeys(one.column for one in known):
        for seed_set in dict.fromkeys(one.seed_set for one in known if one.column == column):
            mine = [one for one in known if (one.column, one.seed_set) == (column, seed_set)]
            curves = [
                Curve(facts.name, facts.place, points, limits=True)
                for facts in found
                if (points := [as_point(one) for one in mine if one.facts is facts])
            ]
            if len(mine) > len(curves):  # a single point each is in the table
                better = BETTER.get(mine[0].better, "")
                title = f"{short_name(column)} with 95 % intervals, {better} (seeds {SETS.get(seed_set, seed_set)})"
                yield draw_curves(title, "real images seen", short_name(column), curves)


def as_point(one: Measurement) -> Point:
    """Return a measurement as a point of a curve."""
    return Point(float(one.images_seen), one.value, one.low, one.high)


def distances(found: Sequence[RunFacts]) -> Iterator[Markup]:
    """Yield the distance of each sample grid to the data, which is measured beside the training."""
    for name in dict.fromkeys(name for facts in found for row in facts.metrics for name in row if "swd_" in name):
        curves = [Curve(facts.name, facts.place, thin_out(points_of(facts.metrics, name))) for facts in found]
        title = f"{name}: sliced Wasserstein distance of the sample grids to the data, lower is better"
        if drawn := draw_curves(title, "real images seen", name, curves):
            yield drawn
