"""The page of a study: one HTML file that needs no network, answers first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from launcher.pages.document import build_document, build_section, figure_row, term_list
from launcher.pages.markup import Markup, join, tag
from launcher.study.analysis.comparison import Comparison, compare_arms
from launcher.study.analysis.results import Study
from launcher.study.report import figures, words
from launcher.study.report.pictures import sample_grids
from launcher.study.report.tables import arms_table, failures_table, pair_matrix, pairs_table, rungs_table
from shards.atomic_files import write_atomically


def write_page(study: Study, path: Path) -> None:
    """Write a study's page; paths of sample grids are seen from its folder.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path, build_page(study, path.parent).encode())


def build_page(study: Study, folder: Path) -> str:
    """Return the page of a study in this folder."""
    found = compare_arms(study)
    return build_document(f"{study.name}: {words.headline(study, found)}", *study_parts(study, found, folder))


def study_parts(study: Study, found: Comparison, folder: Path) -> list[Markup]:
    """Return the answer, and the sections of a study in this folder."""
    return [
        tag("h1", f"Study {study.name}"),
        tag("p", words.headline(study, found), class_="answer"),
        tag("ul", *(tag("li", finding) for finding in words.findings(study, found))),
        build_section("Arms", arms_table(study, found), figure_row(scores_and_cost(study, found))),
        build_section("Pairs", pair_matrix(found), pairs_table(study, found)) if found.pairs else Markup(),
        build_section("While training", figure_row(learning_curves(study))),
        build_section("What they paint", sample_grids(study, folder)),
        build_section("Left behind", rungs_table(study)) if study.rungs else Markup(),
        build_section("Failures", failures_table(study)),
        build_section("How it was measured", term_list(words.describe_method(study))),
        build_section("Once more", how_to_reproduce(study)),
    ]


def scores_and_cost(study: Study, found: Comparison) -> Iterator[Markup]:
    """Yield the figures of the results."""
    if any(summary.mean and summary.rung is None for summary in found.arms):
        yield figures.draw_scores(study, found)
    if any(summary.mean and summary.node_hours and summary.rung is None for summary in found.arms):
        yield figures.draw_cost(study, found)


def learning_curves(study: Study) -> Iterator[Markup]:
    """Yield the learning curves of the deciding metric, or of those that were measured in training."""
    curves = [entry.curve for entry in study.entries if entry.role == "compare"]
    seen = Counter(metric for curve in curves for point in curve for metric in point.metrics)
    drawn = [name for name in seen if any(len(figures.curve_points(curve, name)) > 1 for curve in curves)]
    for name in [study.metric] if study.metric in drawn else sorted(drawn)[:2]:
        yield figures.draw_curves(study, name)


def how_to_reproduce(study: Study) -> Markup:
    """Return the command that makes the study again."""
    return join(
        tag("p", f"Made by lienzo {study.made.version}. The same command trains only what is missing."),
        tag("pre", tag("code", study.made.command), tabindex="0"),
    )
