"""The labels of a dataset: the class that its table has, and the columns of labels.npy beside it, by name.

A picture's labels are one row of numbers: for a class its number (-1: unknown), for a number its value (NaN: unknown),
for a vector all of its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shards.dataset.files import BUILD_AGAIN, INDEX, LABELS
from shards.dataset.index import Index
from shards.dataset.index_content import check_hashes, require
from shards.dataset.table import RowFile, Table, open_rows
from shards.errors import DataError

Labels = npt.NDArray[np.float64]  # (n, values)
MOST_VALUES = 1 << 16  # numbers of a vector
TYPES = {"class": "<i4", "number": "<f8", "vector": "<f8"}


@dataclass(frozen=True)
class Column:
    """One label of each picture."""

    name: str
    kind: Literal["class", "number", "vector"]
    classes: tuple[str, ...] = ()
    """Names of the classes, by their numbers."""
    length: int = 1
    """How many numbers it is."""


def label_columns(index: Index) -> tuple[Column, ...]:
    """Return all labels of a dataset, the one in the table first.

    Raises:
        DataError: the index is damaged.
    """
    first = [Column(table_column(index.content["settings"].get("labels")), "class", index.classes)]
    return *(first if index.classes else []), *stored_columns(index)


def table_column(labels: Any) -> str:
    """Return the name of the label in the table, by the setting that says where labels came from."""
    if isinstance(labels, list) and len(labels) > 1:
        return str(labels[1])  # behind the column of the files' names
    return "folder" if labels == "folders" else str(labels).removeprefix("json:")


def stored_columns(index: Index) -> tuple[Column, ...]:
    """Return the labels in labels.npy.

    Raises:
        DataError: the index is damaged.
    """
    attributes = index.content.get("attributes")
    if attributes is None:
        return ()
    try:
        check_hashes([attributes["sha256"]])
        columns = tuple(map(parse_column, attributes["columns"]))
        require(len({column.name for column in columns}) == len(columns), "two columns have one name")
    except (LookupError, TypeError, ValueError, AttributeError):
        raise DataError(f"{index.path / INDEX} is damaged: {BUILD_AGAIN}") from None
    return columns


def parse_column(values: Mapping[str, Any]) -> Column:
    """Read what an index says of a column.

    Raises:
        ValueError, LookupError, TypeError: something is missing, or of another kind.
    """
    name, kind, classes, length = values["name"], values["kind"], values.get("classes", []), values.get("length", 1)
    require(type(name) is str and kind in TYPES, "it has no name or no kind")
    require(type(length) is int and 0 < length <= MOST_VALUES, "the length is none")
    require(type(classes) is list and {type(one) for one in classes} <= {str}, "a class is no text")
    return Column(name, kind, tuple(classes), length)


class LabelReader:
    """Reads some labels of samples.

    Args:
        index: the dataset.
        names: of the columns; none: the label in the table.

    Raises:
        DataError: there is no such column, or the file cannot be read or does not belong to the index.
    """

    def __init__(self, index: Index, names: Sequence[str] = ()) -> None:
        self.index, stored = index, stored_columns(index)
        known = {column.name: column for column in label_columns(index)}
        for name in names:
            if name not in known:
                there = f"there are {', '.join(map(repr, known))}" if known else "its pictures have none"
                raise DataError(f"{index.path} has no labels {name!r}; {there}")
        self.columns = tuple(known[name] for name in names) or (Column("", "class", index.classes),)
        beside = open_stored(index, stored) if any(column in stored for column in self.columns) else None
        self.tables = [
            (beside, column.name) if beside is not None and column in stored else (index.table, "label")
            for column in self.columns
        ]

    def __call__(self, rows: npt.NDArray[np.int64]) -> Labels:
        """Return the labels of these rows of the table, (n, values).

        Raises:
            DataError: a value in labels.npy is not one of its column.
        """
        found = []
        for column, (table, field) in zip(self.columns, self.tables, strict=True):
            values = table[rows][field]
            if table is not self.index.table and not is_of(column, values):
                raise DataError(f"{self.index.path / LABELS} is damaged in {column.name!r}: {BUILD_AGAIN}")
            found.append(values.reshape(-1, column.length).astype(np.float64))
        return np.concatenate(found, 1)

    def first_classes(self, labels: Labels) -> npt.NDArray[np.int64]:
        """Return the classes (n,) of the first label that has any; -1: unknown."""
        places = np.cumsum([0, *(column.length for column in self.columns)])
        for column, place in zip(self.columns, places.tolist(), strict=False):
            if column.kind == "class":
                return labels[:, place].astype(np.int64)
        return np.full(len(labels), -1)


def open_stored(index: Index, columns: Sequence[Column]) -> Table:
    """Return the rows of labels.npy, which has these columns: (samples,).

    Raises:
        DataError: it cannot be read, or does not belong to the index.
    """
    fields = [(one.name, TYPES[one.kind], (one.length,) if one.kind == "vector" else ()) for one in columns]
    file = RowFile(LABELS, np.dtype(fields), len(index.table), index.content["attributes"]["sha256"])
    return open_rows(index.path, file, index.cache)


def is_of(column: Column, values: npt.NDArray[Any]) -> bool:
    """Tell whether the values of a column can be: unknown, a class that there is, or a number that is finite."""
    if column.kind == "class":
        return bool(((values >= -1) & (values < len(column.classes))).all())
    return not bool(np.isinf(values).any())
