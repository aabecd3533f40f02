"""What W&B shows beside a run's rows: its settings, what it is, its axes, and which figures are best low or high."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.core.migration import load_json
from trainer.runs.journal import Row
from trainer.runs.run_folder import RunFolder
from trainer.tracking.attempt_rows import HOURS
from trainer.tracking.evaluation_rows import AXIS

MOST_CLASSES = 1000
"""Rows of the table of classes: the largest ones."""
Rows = tuple[list[str], list[list[Any]]]
"""The names of a table's columns, and its rows."""


def run_config(run: RunFolder, continues: str | None) -> dict[str, Any]:
    """Return what W&B keeps as the run's config.

    Args:
        run: the run folder.
        continues: the id of the W&B run before, after a rollback.
    """
    config = load_json(run.config) if run.config.exists() else {}
    described = read_description(run)
    if described:
        dataset = {name: value for name, value in described["dataset"].items() if name != "classes"}
        classes = {column: len(counts) for column, counts in described["dataset"]["classes"].items()}
        config |= {"changed": described["changed"], "dataset": dataset | {"classes": classes}}
    if code := run.newest_code():
        config["code"] = {"snapshot": str(code.resolve()), **code_origin(code / "origin.json")}
    return config | ({"continues": continues} if continues else {})


def code_origin(path: Any) -> dict[str, Any]:
    """Return the commit of a copy of the code, and whether it differs from that."""
    try:
        origin = load_json(path)
    except (OSError, ValueError):
        return {}
    return {name: origin.get(name) for name in ("commit", "changed")}


def read_description(run: RunFolder) -> dict[str, Any]:
    """Return what a run says of itself; empty: it has begun under an earlier version, or the file is damaged."""
    try:
        return load_json(run.description)
    except (OSError, ValueError):
        return {}


def data_tables(run: RunFolder) -> dict[str, Rows]:
    """Return what the dataset holds as tables, by name: exclusions by reason, and pictures of each class."""
    dataset = read_description(run).get("dataset", {})
    tables: dict[str, Rows] = {}
    if excluded := dataset.get("excluded"):
        tables["data/excluded"] = ["reason", "files"], ranked(excluded)
    if columns := dataset.get("classes"):
        rows = [[column, *row] for column, counts in columns.items() for row in ranked(counts)[:MOST_CLASSES]]
        tables["data/classes"] = ["label", "class", "pictures"], rows
    return tables


def ranked(counts: Mapping[str, int]) -> list[list[Any]]:
    """Return names and counts, the largest first."""
    return [[name, count] for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def define_axes(opened: Any) -> None:
    """Tell W&B over what each column is drawn, and what of it stands in the table of runs."""
    for axis in ("images_seen", AXIS, HOURS):
        opened.define_metric(axis, hidden=True)
    # The first that matches wins.
    opened.define_metric("evaluation/*", step_metric=AXIS)
    opened.define_metric("attempt/*", step_metric=HOURS)
    opened.define_metric("swd_*", step_metric="images_seen", summary="min,last")
    opened.define_metric("*", step_metric="images_seen")


def define_best(opened: Any, evaluation: Row) -> None:
    """Have the table of runs show the best of an evaluation's figures, besides the last."""
    for name, figure in evaluation["figures"].items():
        best = {"lower": "min,last", "higher": "max,last"}.get(figure.get("better"))
        if best:
            column = f"evaluation/{evaluation['seed_set']}/{name}"
            opened.define_metric(column, step_metric=AXIS, summary=best)
