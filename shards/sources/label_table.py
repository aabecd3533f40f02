"""A table of labels: CSV with any usual separator, in UTF-8 or, as spreadsheets export it, in UTF-16."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from shards.dataset.index import DataError
from shards.sources.source_entry import encode_name, quote_name

SEPARATORS = (",", ";", "\t", "|")  # tried in this order
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks
OTHER_FORMATS = {  # first bytes of files that are not CSV -> their format
    b"PK\x03\x04": "a spreadsheet or a zip",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\x1f\x8b": "packed with gzip",
    b"{": "JSON",
    b"[": "JSON",
}
FROM_JSON = """python -c '
import csv, json, sys
csv.writer(sys.stdout).writerows([("file", "label"), *json.load(open(sys.argv[1]))["labels"]])' {} > labels.csv"""
MAX_COLUMNS = 20  # in a message
HEADER_BYTES = 1 << 12  # by which the format is recognized


@dataclass(frozen=True)
class LabelTable:
    """A CSV file with a column of files and a column of labels."""

    path: Path
    file_column: str
    label_column: str

    def rows(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield each row's file and label, None where the cell is empty.

        Raises:
            DataError: the file cannot be read, or lacks a column.
        """
        line = 1
        try:
            encoding = self.encoding()
            with self.path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
                separator = self.separator(file)
                file.seek(0)
                reader = csv.DictReader(file, delimiter=separator)
                for row in reader:
                    line = reader.line_num
                    if name := row[self.file_column]:
                        yield encode_name(name), encode_name(row[self.label_column] or "") or None
        except OSError as error:
            raise DataError(f"{self.path}, the labels, cannot be read: {error.strerror}") from error
        except (csv.Error, UnicodeError) as error:
            raise DataError(f"{self.path} is no CSV: behind line {line}: {error}") from error

    def encoding(self) -> str:
        """Return the text encoding, by the first bytes.

        Raises:
            DataError: it is not text, or it is JSON; the message says how to convert it.
        """
        with self.path.open("rb") as file:
            start = file.read(HEADER_BYTES)
        if start.startswith(UTF_16):
            return "utf-16"
        text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
        kind = next((name for magic, name in OTHER_FORMATS.items() if text.startswith(magic)), None)
        if kind == "JSON":
            command = FROM_JSON.format(shlex.quote(str(self.path)))
            raise DataError(
                f"{self.path}, the labels, is JSON and no CSV. If it is StyleGAN's dataset.json, make a CSV with\n"
                f"{command}\nand give --labels labels.csv; else write one with the columns file and label"
            )
        if kind or b"\0" in start:
            raise DataError(
                f"{self.path}, the labels, is {kind or 'no text'} and no CSV: save it as CSV (UTF-8) with the program "
                "that it is from"
            )
        # Takes UTF-8 with a byte order mark, as spreadsheets write it, and without one.
        return "utf-8-sig"

    def separator(self, file: TextIO) -> str:
        """Return the separator of the columns: the first one with which the header has both names.

        Raises:
            DataError: a column is missing; the message lists the columns.
        """
        headers = {separator: read_header(file, separator) for separator in SEPARATORS}
        wanted = (self.file_column, self.label_column)
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


def read_header(file: TextIO, separator: str) -> list[str]:
    """Return the names of the columns if `separator` separates them."""
    file.seek(0)
    try:
        return next(csv.reader(file, delimiter=separator), [])
    except csv.Error:  # such as a quote that is never closed
        return []
