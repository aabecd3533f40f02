"""Labels: from the folders' names, or from a table whose rows are matched to pictures in the listing's database."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Callable

from PIL import Image

from shards.dataset.index import DataError
from shards.sources.label_table import Csv
from shards.sources.source_entry import to_show, to_text

ROWS = """
    CREATE TABLE row_of_csv (id INTEGER PRIMARY KEY, file BLOB, folded BLOB, label BLOB);
    CREATE TABLE match (found INTEGER PRIMARY KEY, row INTEGER);
"""
CONFLICT = "SELECT file FROM row_of_csv GROUP BY file HAVING count(DISTINCT ifnull(label, x'')) > 1 ORDER BY file"
# Pairs of a picture and a row that neither have found a partner yet; of equal rows the first one stands for all.
PAIRS = """
    CREATE TEMP TABLE pair AS SELECT found.rowid AS found, found.name AS name, row_of_csv.id AS row,
        row_of_csv.file AS file, row_of_csv.label AS label
    FROM found JOIN row_of_csv ON row_of_csv.{column} = key(found.name)
    WHERE found.reason IS NULL AND found.rowid NOT IN (SELECT found FROM match)
        AND row_of_csv.file NOT IN (SELECT file FROM row_of_csv JOIN match ON match.row = row_of_csv.id)
"""
SEVERAL_PICTURES = "SELECT file, min(name), max(name), count(DISTINCT name) AS n FROM pair GROUP BY file HAVING n > 1"
SEVERAL_LABELS = """
    SELECT name, min(file), max(file), count(DISTINCT ifnull(label, x'')) AS n FROM pair GROUP BY name HAVING n > 1
"""
LABELLED = "SELECT 1 FROM found WHERE label NOT NULL AND reason IS NULL LIMIT 1"
FIRST_NAME = "SELECT name FROM found WHERE reason IS NULL ORDER BY name LIMIT 1"
FOLDERS_INSIDE = """
    SELECT min(inside), max(inside) FROM
        (SELECT folder(substr(name, ?)) AS inside FROM found WHERE reason IS NULL AND label NOT NULL)
"""
LABEL = """
    UPDATE found SET label =
        (SELECT row_of_csv.label FROM match JOIN row_of_csv ON row = row_of_csv.id WHERE match.found = found.rowid)
"""
COUNTS = """
    SELECT (SELECT count(*) FROM row_of_csv), (SELECT count(*) FROM row_of_csv WHERE file IN
        (SELECT file FROM row_of_csv JOIN match ON match.row = row_of_csv.id)),
        (SELECT count(*) FROM found WHERE reason IS NULL AND rowid NOT IN (SELECT found FROM match))
"""


def folder_of(name: bytes) -> bytes | None:
    """Return the label by folder: the first one of the path, None for a file that lies in no folder."""
    first, slash, _ = name.partition(b"/")
    return first if slash else None


def check_folders(database: sqlite3.Connection) -> None:
    """Check that labels by folder label something.

    Raises:
        DataError: no file lies in a folder.
    """
    labelled, listed = (database.execute(query).fetchone() for query in (LABELLED, FIRST_NAME))
    if listed and not labelled:
        raise DataError(
            f"--labels folders, but no file of the source lies in a folder, see {to_show(listed[0])}: put the pictures "
            "of each class into a folder of its own, give a CSV, or leave --labels away"
        )


def only_folder(database: sqlite3.Connection) -> bytes | None:
    """Return the folder that everything labelled lies in, if it has several, which may be the classes meant."""
    database.create_function("folder", 1, folder_of, deterministic=True)
    around = b""
    while True:
        first, last = database.execute(FOLDERS_INSIDE, (len(around) + 1,)).fetchone()
        if first is None:
            return None
        if first != last:
            return around.rstrip(b"/") or None
        around += first + b"/"


def base(name: bytes) -> bytes:
    """Return the last part of a path."""
    return name.rpartition(b"/")[2]


def stem(name: bytes) -> bytes | None:
    """Return the last part of a path without the extension of pictures; None: it has another, as texts beside them."""
    start, dot, extension = base(name).rpartition(b".")
    return start if to_text(dot + extension).lower() in Image.registered_extensions() else None


def fold(name: bytes | None) -> bytes | None:
    """Return a name as people take it for the same: in whatever case, form of Unicode and kind of slashes."""
    if name is None:
        return None
    text = unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape").replace("\\", "/")).casefold()
    return re.sub(r"^(\./+)+", "", text).encode("utf-8", "surrogateescape")


KEYS: dict[str, Callable[[bytes], bytes | None]] = {
    "path": lambda name: name,
    "last part": base,
    "last part without extension": stem,
}
"""What of a picture's path a row may name, the most exact first."""


def label_by_csv(database: sqlite3.Connection, table: Csv) -> None:
    """Label the files that were found: by a row with the whole path, else its last part, else that without extension.

    A row belongs to what it names most exactly, so a path in it is never taken for another picture's last part.

    Raises:
        DataError: a file has two labels, a row fits two files, or no row gives any file a label.
    """
    database.executescript(ROWS)
    rows = ((file, fold(file), label) for file, label in table.rows())
    database.executemany("INSERT INTO row_of_csv (file, folded, label) VALUES (?, ?, ?)", rows)
    database.executescript(
        "CREATE INDEX row_by_file ON row_of_csv (file); CREATE INDEX row_by_folded ON row_of_csv (folded)"
    )
    if conflict := database.execute(CONFLICT).fetchone():
        raise DataError(f"{table.path} has rows with different labels for {to_show(conflict[0])}: keep one of them")
    for column, form in ("file", lambda key: key), ("folded", fold):
        for what, key in KEYS.items():
            database.create_function("key", 1, lambda name, key=key, form=form: form(key(name)), deterministic=True)
            match_rows(database, table, what, column)
    database.execute(LABEL)
    labelled, listed = (database.execute(query).fetchone() for query in (LABELLED, FIRST_NAME))
    if listed and not labelled:
        raise DataError(f"no row of {table.path} {why_none(database, table, listed[0])}")


def match_rows(database: sqlite3.Connection, table: Csv, what: str, column: str) -> None:
    """Match rows and pictures by one key.

    Raises:
        DataError: a row fits two pictures, or a picture two rows with different labels.
    """
    database.execute(PAIRS.format(column=column))
    if several := database.execute(SEVERAL_PICTURES).fetchone():
        file, first, last, count = several
        raise DataError(
            f"{table.path}: the row of {to_show(file)} fits the {what} of {count:,} files, {to_show(first)} and "
            f"{to_show(last)} for two: write their whole paths in column {table.file_column!r}"
        )
    if several := database.execute(SEVERAL_LABELS).fetchone():
        name, first, last, _ = several
        raise DataError(
            f"{table.path} has rows with different labels, {to_show(first)} and {to_show(last)}, for {to_show(name)}: "
            "keep one of them"
        )
    database.execute("INSERT INTO match SELECT found, min(row) FROM pair GROUP BY found")
    database.execute("DROP TABLE pair")


def why_none(database: sqlite3.Connection, table: Csv, name: bytes) -> str:
    """Return why a table labels nothing of a source with this file, as the end of a message."""
    used = matching(database)["rows_with_picture"]
    if used:
        return f"has a label: column {table.label_column!r} is empty in all {used:,} that name a file of the source"
    row = database.execute("SELECT file FROM row_of_csv ORDER BY id LIMIT 1").fetchone()
    return (
        f"names a file of the source: column {table.file_column!r} has {to_show(row[0]) if row else 'nothing'}, the "
        f"source has {to_show(name)}; its path, the last part of that, and that without extension were compared: name "
        "another column with --file-column, or mend the names"
    )


def matching(database: sqlite3.Connection) -> dict[str, int]:
    """Count the rows that have a file of the source, those that have none, and the files that have no row."""
    rows, used, alone = database.execute(COUNTS).fetchone()
    return {"rows_with_picture": used, "rows_without_picture": rows - used, "pictures_without_row": alone}
