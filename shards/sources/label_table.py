"""A table of labels: CSV with any usual separator and encoding, or StyleGAN's dataset.json."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, TextIO

from shards.dataset.index import DataError
from shards.sources.label_json import read_label_json
from shards.sources.label_names import normalise_label
from shards.sources.source_entry import encode_name, quote_name
from shards.sources.table_text import OLD_ENCODINGS, SEPARATORS, find_encoding, is_json, open_text, read_header
from shards.storage.place import Place

MAX_COLUMNS = 20  # in a message
JSON_COLUMN = "label"  # of dataset.json, which has no names of columns


class TableRow(NamedTuple):
    """What a row says of a file."""

    file: bytes
    label: bytes | None
    """Of the first label column; None: the cell is empty."""
    extra: str
    """JSON with the "labels" (other columns), "numbers" or "vector"; empty: the table has none of these."""
    kept: bool
    """Whether the row has all values that --filter asks for."""


@dataclass(frozen=True)
class LabelTable:
    """A table with a column of files and columns of labels."""

    path: Place
    open: Callable[[], AbstractContextManager[BinaryIO]]
    """Opens it as a seekable file; it may lie in an archive."""
    file_column: str
    label_columns: tuple[str, ...]
    number_columns: tuple[str, ...] = ()
    filters: tuple[tuple[str, str], ...] = ()
    """Columns and the values that rows must have."""
    normalise: bool = False
    notes: list[str] = field(default_factory=list)
    """What the user should know of the table; complete after `rows`."""

    def rows(self) -> Iterator[TableRow]:
        """Yield the rows that name a file.

        Raises:
            DataError: the table cannot be read, lacks a column, or has no number where one is asked for.
        """
        try:
            with self.open() as file:
                yield from self.json_rows(file) if is_json(file) else self.csv_rows(file)
        except OSError as error:
            raise DataError(f"{self.path}, the labels, cannot be read: {error.strerror or error}") from error

    def json_rows(self, file: BinaryIO) -> Iterator[TableRow]:
        """Yield the rows of dataset.json."""
        if len(self.label_columns) > 1 or self.number_columns or self.filters:
            raise DataError(
                f"{self.path} is JSON, which has one label for each file and no columns: leave --label-column, "
                "--number-column and --filter away, or give a CSV"
            )
        for name, label in read_label_json(file, str(self.path)):
            vector = json.dumps({"vector": label}) if isinstance(label, list) else ""
            yield TableRow(encode_name(name), self.label_of(label if isinstance(label, str) else ""), vector, True)

    def csv_rows(self, file: BinaryIO) -> Iterator[TableRow]:
        """Yield the rows of a CSV."""
        line, encoding = 1, find_encoding(file, str(self.path))
        if encoding in OLD_ENCODINGS:
            self.notes.append(f"{self.path} is not in Unicode: read as {OLD_ENCODINGS[encoding]}")
        try:
            with open_text(file, encoding) as text:
                separator = self.separator(text)
                text.seek(0)
                reader = csv.DictReader(text, delimiter=separator)
                for row in reader:
                    line = reader.line_num
                    if row[self.file_column]:
                        yield self.parse_row(row, separator, line)
        except (csv.Error, UnicodeError) as error:
            raise DataError(f"{self.path} is no CSV: behind line {line}: {error}") from error

    def parse_row(self, row: dict[str, str], separator: str, line: int) -> TableRow:
        """Return what a row says."""
        first, *others = self.label_columns
        found: dict[str, dict[str, str | float | None]] = {}
        if others:
            labels = {column: self.label_of(row[column]) for column in others}
            found["labels"] = {
                column: label.decode("utf-8", "surrogateescape") if label else None for column, label in labels.items()
            }
        if self.number_columns:
            place = f"{self.path}, line {line}"
            found["numbers"] = {
                column: parse_number(row[column], separator, f"{place}, column {column!r}")
                for column in self.number_columns
            }
        kept = all(row[column] == value for column, value in self.filters)
        extra = json.dumps(found) if found else ""
        return TableRow(encode_name(row[self.file_column]), self.label_of(row[first]), extra, kept)

    def label_of(self, cell: str | None) -> bytes | None:
        """Return a cell as a label; None: it is empty."""
        text = cell or ""
        return encode_name(normalise_label(text) if self.normalise else text) or None

    def separator(self, file: TextIO) -> str:
        """Return the separator of the columns: the first one with which the header has all names.

        Raises:
            DataError: a column is missing; the message lists the columns.
        """
        headers = {separator: read_header(file, separator) for separator in SEPARATORS}
        wanted = (self.file_column, *self.label_columns, *self.number_columns, *(column for column, _ in self.filters))
        for separator, columns in headers.items():
            if all(column in columns for column in wanted):
                return separator
        columns = max(headers.values(), key=len)
        missing = next((column for column in wanted if column not in columns), wanted[0])
        more = f" and {len(columns) - MAX_COLUMNS:,} more" if len(columns) > MAX_COLUMNS else ""
        raise DataError(
            f"{self.path} has no column {missing!r}; it has: "
            f"{', '.join(map(quote_name, columns[:MAX_COLUMNS])) or 'nothing'}{more}: name two of them with "
            "--file-column and --label-column"
        )


def parse_number(cell: str | None, separator: str, place: str) -> float | None:
    """Return a cell as a number; None: it is empty. Where semicolons separate, a comma may be the decimal point.

    Raises:
        DataError: it is no finite number.
    """
    text = (cell or "").strip()
    if not text:
        return None
    try:
        number = float(text.replace(",", ".") if separator == ";" else text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{place} has {quote_name(text)}, which is no number: correct it, or leave the cell empty")
    return number
