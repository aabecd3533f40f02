"""labels.json of a run: which labels its networks are told, and those of some training pictures.

So a trained generator knows the names of classes without the data, and which labels go together: what nobody has
chosen is as in these pictures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from command_line.suggestion import did_you_mean
from shards.atomic_files import write_atomically
from shards.dataset.index import Index
from shards.dataset.labels import Column, LabelReader, Labels, parse_column
from shards.dataset.order import permute
from trainer.core.fields import Refused
from trainer.core.migration import load_json, with_schema
from trainer.runs.run_folder import RunFolder

KEPT = 1024  # training pictures


@dataclass(frozen=True)
class RunLabels:
    """The labels that a run's networks are told."""

    columns: tuple[Column, ...]
    rows: Labels
    """Those of some training pictures, (m, values), in a random order."""

    def names(self) -> list[str]:
        """Return the names of the columns."""
        return [column.name for column in self.columns]

    def places(self) -> dict[str, slice]:
        """Return where the numbers of each column are in a row."""
        stops = np.cumsum([column.length for column in self.columns]).tolist()
        return {one.name: slice(stop - one.length, stop) for one, stop in zip(self.columns, stops, strict=True)}

    def choose(self, asked: Mapping[str, str]) -> Labels:
        """Return rows with these values; what is not asked for is as in training pictures of the same classes, if any.

        Args:
            asked: values by the name of the column.

        Raises:
            Refused: there is no such column, or it has no such value.
        """
        columns, places, rows = {column.name: column for column in self.columns}, self.places(), self.rows
        chosen: dict[str, list[float]] = {}
        for name, text in asked.items():
            if name not in columns:
                hint = did_you_mean(name, columns, f"they are told {', '.join(columns)}")
                raise Refused(f"--label: the networks are told no {name!r}; {hint}")
            chosen[name] = parse_value(columns[name], text)
            if columns[name].kind == "class":
                fitting = rows[(rows[:, places[name]] == chosen[name]).all(1)]
                rows = fitting if len(fitting) else rows
        rows = rows.copy()
        for name, values in chosen.items():
            rows[:, places[name]] = values
        return rows


def parse_value(column: Column, text: str) -> list[float]:
    """Read a value of a column: a class by its name or number, a number, or a vector with commas.

    Raises:
        Refused: it has no such value.
    """
    if column.kind == "class":
        if text in column.classes:
            return [float(column.classes.index(text))]
        if text.isdecimal() and int(text) < len(column.classes):
            return [float(int(text))]
        known = f"they are numbered from 0 to {len(column.classes) - 1}"
        raise Refused(f"--label: {column.name} has no {text!r}; {did_you_mean(text, column.classes, known)}")
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != column.length or not all(map(math.isfinite, values)):
        wanted = "a number" if column.kind == "number" else f"{column.length} numbers, with commas between them"
        raise Refused(f"--label: {column.name} must be {wanted}, but is {text!r}")
    return values


def keep_labels(run: RunFolder, index: Index, names: tuple[str, ...]) -> None:
    """Write labels.json into the run folder.

    Raises:
        DataError: the data has no such labels.
        OSError: it cannot be written.
    """
    reader, split = LabelReader(index, names), index.splits["train"]
    places = permute(np.arange(min(KEPT, split.samples)), split.samples, "labels of the run")
    rows = [[None if math.isnan(value) else value for value in row] for row in reader(split.first + places).tolist()]
    values = {"columns": [asdict(column) for column in reader.columns], "rows": rows}
    write_atomically(run.labels, (json.dumps(with_schema(values)) + "\n").encode())


def read_labels(run: RunFolder) -> RunLabels:
    """Read labels.json.

    Raises:
        Refused: it is not there, or damaged.
    """
    try:
        return parse_labels(load_json(run.labels))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Refused(f"{run.labels} cannot be read: {error}") from error


def parse_labels(values: Mapping[str, Any]) -> RunLabels:
    """Return what labels.json holds.

    Raises:
        ValueError, LookupError, TypeError: it is damaged.
    """
    columns = tuple(map(parse_column, values["columns"]))
    rows = np.array([[math.nan if value is None else value for value in row] for row in values["rows"]], np.float64)
    if not len(rows) or rows.shape[1:] != (sum(column.length for column in columns),):
        raise ValueError("the rows are not of its columns")
    return RunLabels(columns, rows)
