"""How training went: losses, logits, norms, and what else was logged of each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from launcher.pages.document import figure_row, folded
from launcher.pages.markup import Markup, tag
from launcher.pages.numbers import format_number
from launcher.pages.tables import build_table
from launcher.report.curves import Curve, draw_curves, thin_out
from launcher.report.run_facts import RunFacts, is_number, points_of

TOGETHER = (
    ("Losses", "loss_d", "loss_g"),
    ("What D says of reals and fakes (logits, mean)", "logits_real", "logits_fake"),
    ("Norms of the gradients", "grad_norm_d", "grad_norm_g"),
)
"""Titles of figures, and the columns that one run shows in each."""
ELSEWHERE = ("images_seen", "epoch", "schema")
MEASURED = ("swd_",)  # of pictures: they are among the metrics
BELOW = "real images seen"


def training_parts(found: Sequence[RunFacts]) -> list[Markup]:
    """Return the figures and the table of what was logged."""
    first = [name for _, *names in TOGETHER for name in names]
    rest = [name for name in logged_columns(found) if name not in first]
    shown = figure_row(one_run_figures(found[0]) if len(found) == 1 else figures_by_column(found, first))
    more = figure_row(figures_by_column(found, rest))
    return [
        *not_finite(found),
        shown,
        *([folded(f"Figures of {len(rest)} further columns", more)] if more else []),
        *([folded("The numbers", last_values(found))] if shown else []),
    ]


def logged_columns(found: Sequence[RunFacts]) -> list[str]:
    """Return the names of what was logged, in the order in which they came up."""
    names = dict.fromkeys(name for facts in found for row in facts.metrics for name in row)
    return [name for name in names if name not in ELSEWHERE and not name.startswith(MEASURED)]


def one_run_figures(facts: RunFacts) -> Iterator[Markup]:
    """Yield figures of one run, in which belong together what is compared."""
    for title, *names in TOGETHER:
        curves = [Curve(name, k, thin_out(points_of(facts.metrics, name))) for k, name in enumerate(names)]
        if drawn := draw_curves(title, BELOW, "", curves):
            yield drawn


def figures_by_column(found: Sequence[RunFacts], names: Sequence[str]) -> Iterator[Markup]:
    """Yield a figure for each column, with a curve for each run."""
    for name in names:
        curves = [Curve(facts.name, facts.place, thin_out(points_of(facts.metrics, name))) for facts in found]
        # What never changes is in the table.
        if len({point.y for curve in curves for point in curve.points}) > 1 and (
            drawn := draw_curves(name, BELOW, "", curves)
        ):
            yield drawn


def not_finite(found: Sequence[RunFacts]) -> Iterator[Markup]:
    """Yield which columns held numbers that no figure can show, and from when."""
    for facts in found:
        for name in logged_columns([facts]):
            odd = [row["images_seen"] for row in facts.metrics if name in row and not is_number(row[name])]
            if odd:
                words = f"{facts.name}: {name} was no finite number in {len(odd):,} rows, first at {odd[0]:,} images."
                yield tag("p", words, class_="note")


def last_values(found: Sequence[RunFacts]) -> Markup:
    """Return the least, the largest and the last number of each column."""
    rows = []
    for name in logged_columns(found):
        for facts in found:
            if values := [value for _, value in points_of(facts.metrics, name)]:
                label = f"{name}, {facts.name}" if len(found) > 1 else name
                rows.append([label, *map(format_number, (values[0], min(values), max(values), values[-1]))])
    return build_table("What was logged of steps", ("Column", "First", "Least", "Largest", "Last"), rows)
