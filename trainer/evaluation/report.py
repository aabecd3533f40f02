"""An evaluation as a table for people, as a JSON file, and as a row in the run folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from shards.atomic_files import write_atomically
from trainer.core.fields import Refused
from trainer.core.migration import with_schema
from trainer.evaluation.figures import Figure
from trainer.metrics.base import DEFINITIONS, Estimate
from trainer.runs import journal
from trainer.runs.journal import Journal, number_or_name
from trainer.runs.run_folder import RunFolder

ARROWS = {"lower": "↓", "higher": "↑", "data": "→ floor"}


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: it does not depend on the number of processes, so it can be compared as bytes."""

    facts: Mapping[str, object]
    """What the figures hold for, such as the checkpoint and the seed set."""
    figures: tuple[Figure, ...]
    left_out: Mapping[str, str]
    """Metrics that could not be computed, and why."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON; NaN and infinities, which JSON lacks, become their names."""
        figures = {figure.column: figure.to_json() for figure in self.figures}
        made = {"lienzo": version("lienzo"), "torch": torch.__version__, "definitions": DEFINITIONS}
        plain = {**self.facts, "made_with": made, "figures": figures, "left_out": dict(self.left_out)}
        return json_values(plain)  # type: ignore[no-any-return]

    def write(self, path: Path) -> None:
        """Write a JSON file, atomically.

        Raises:
            Refused: it cannot be written.
        """
        try:
            write_atomically(path, json.dumps(with_schema(self.to_json()), indent=1, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise Refused(f"{path} cannot be written: {error.strerror}") from error

    def record(self, run: RunFolder) -> None:
        """Append a row to the run's evaluations, unless it has the same row already."""
        row = self.to_json()
        if row not in journal.read_rows(run.evaluations):  # the same command may run twice, and a killed one again
            file = Journal(run.evaluations)
            file.append(with_schema(row))
            file.sync()
            file.close()

    def show(self) -> None:
        """Print the table."""
        table = Table("metric", "better", title=None)
        for name in ("value", "95 % interval", "real against real", "pictures"):
            table.add_column(name, justify="right")
        for figure in self.figures:
            estimate = figure.estimate
            interval = f"{format_number(estimate.low)} to {format_number(estimate.high)}"
            table.add_row(
                figure.column,
                ARROWS[figure.better],
                format_number(estimate.value),
                "none" if estimate.low == estimate.high else interval,
                describe_floor(figure.floor, estimate),
                describe_sizes(estimate),
            )
        width = None if os.isatty(1) else 200  # in a file or pipe, rich would wrap at 80 columns
        console = Console(highlight=False, width=width)
        console.print(table)
        for name, why in self.left_out.items():
            console.print(f"{name} is left out: {why}", soft_wrap=True, markup=False)


def describe_floor(floor: Estimate | None, estimate: Estimate) -> str:
    """Return the floor as text, with its numbers of images if they differ from the estimate's."""
    if floor is None:
        return "too few reals"
    return format_number(floor.value) + (
        "" if describe_sizes(floor) == describe_sizes(estimate) else f" (of {describe_sizes(floor)})"
    )


def describe_sizes(estimate: Estimate) -> str:
    """Return how many images were measured, and against how many if that is not the same number."""
    same = estimate.reals in (None, estimate.count)
    words = f"{estimate.count:,}" + ("" if same else f" against {estimate.reals:,}")
    return words if estimate.held_out is None else f"{words} and {estimate.held_out:,} held out"


def format_number(value: float) -> str:
    """Return a number with four significant digits."""
    return f"{value:.4g}"


def json_values(value: Any) -> Any:
    """Return plain values with NaN and infinities replaced by their names, at any depth."""
    if isinstance(value, Mapping):
        return {key: json_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(inner) for inner in value]
    return number_or_name(value) if isinstance(value, float) else value
