"""Labels: from the folders' names, or from a CSV whose rows are matched to pictures in the listing's database."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shards.found import to_bytes, to_text
from shards.index import DataError

ROWS = """
    CREATE TABLE row_of_csv (file BLOB, label BLOB);
    CREATE TABLE match (found INTEGER PRIMARY KEY, row INTEGER);
"""
MATCH = """
    INSERT INTO match SELECT rowid, coalesce(
        (SELECT min(rowid) FROM row_of_csv WHERE file = name),
        (SELECT min(rowid) FROM row_of_csv WHERE file = base(name)),
        (SELECT min(rowid) FROM row_of_csv WHERE file = stem(name))
    ) FROM found WHERE reason IS NULL
"""
LABEL = "UPDATE found SET label = (SELECT row_of_csv.label FROM match JOIN row_of_csv ON row = row_of_csv.rowid WHERE "
CONFLICT = "SELECT file FROM row_of_csv GROUP BY file HAVING count(DISTINCT ifnull(label, x'')) > 1 ORDER BY file"


@dataclass(frozen=True)
class Csv:
    """A table of labels."""

    path: Path
    file_column: str
    label_column: str

    def rows(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield each row's file and label, None where the cell is empty.

        Raises:
            DataError: the file cannot be read, or lacks a column.
        """
        try:
            with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                reader = csv.DictReader(file)
                columns = reader.fieldnames or []
                for column in (self.file_column, self.label_column):
                    if column not in columns:
                        raise DataError(f"{self.path} has no column {column!r}; it has: {', '.join(columns)}")
                for row in reader:
                    if name := row[self.file_column]:
                        yield to_bytes(name), to_bytes(row[self.label_column] or "") or None
        except OSError as error:
            raise DataError(f"{self.path}, the labels, cannot be read: {error.strerror}") from error
        except csv.Error as error:
            raise DataError(f"{self.path} is no CSV: line {reader.line_num}: {error}") from error


def folder_of(name: bytes) -> bytes | None:
    """Return the label by folder: the first one of the path, None for a file that lies in no folder."""
    first, slash, _ = name.partition(b"/")
    return first if slash else None


def stem(name: bytes) -> bytes:
    """Return the last part of a path without its extension."""
    return name.rpartition(b"/")[2].rpartition(b".")[0]


def label_by_csv(database: sqlite3.Connection, table: Csv) -> None:
    """Label the files that were found: by a row with the whole name, else its last part, else that without extension.

    Raises:
        DataError: a file has two labels, or no row names any file.
    """
    database.executescript(ROWS)
    database.executemany("INSERT INTO row_of_csv VALUES (?, ?)", table.rows())
    database.execute("CREATE INDEX row_by_file ON row_of_csv (file)")
    if conflict := database.execute(CONFLICT).fetchone():
        raise DataError(f"{table.path} has rows with different labels for {to_text(conflict[0])!r}: keep one of them")
    database.create_function("base", 1, lambda name: name.rpartition(b"/")[2], deterministic=True)
    database.create_function("stem", 1, stem, deterministic=True)
    database.execute(MATCH)
    database.execute(LABEL + "match.found = found.rowid)")
    if not matching(database)["rows_with_picture"]:
        example = database.execute("SELECT file FROM row_of_csv LIMIT 1").fetchone() or (b"nothing",)
        raise DataError(
            f"no row of {table.path} names a file of the source: column {table.file_column!r} starts with "
            f"{to_text(example[0])!r}"
        )


def matching(database: sqlite3.Connection) -> dict[str, int]:
    """Count the rows that have a file of the source, those that have none, and the files that have no row."""
    rows, used, alone = database.execute(
        "SELECT (SELECT count(*) FROM row_of_csv), (SELECT count(DISTINCT row) FROM match), "
        "(SELECT count(*) FROM match WHERE row IS NULL)"
    ).fetchone()
    return {"rows_with_picture": used, "rows_without_picture": rows - used, "pictures_without_row": alone}
