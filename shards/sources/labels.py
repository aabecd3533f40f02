"""Label the listed files: by their folders, or by a table whose rows are matched to them in the listing's database."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Callable

from PIL import Image

from shards.dataset.index import DataError
from shards.sources.label_table import LabelTable
from shards.sources.source_entry import decode_name, quote_name

CREATE_TABLES = """
    CREATE TABLE row_of_csv (
        id INTEGER PRIMARY KEY, file BLOB, folded BLOB, label BLOB, extra TEXT, kept INTEGER,
        content TEXT AS (hex(ifnull(label, x'')) || kept || extra)
    );
    CREATE TABLE match (entry INTEGER PRIMARY KEY, row INTEGER);
"""
FIND_CONFLICT = "SELECT file FROM row_of_csv GROUP BY file HAVING count(DISTINCT content) > 1 ORDER BY file"
# Pairs of a file and a row with equal keys, of which neither has a match yet.
MAKE_PAIRS = """
    CREATE TEMP TABLE pair AS SELECT entry.rowid AS entry, entry.name AS name, row_of_csv.id AS row,
        row_of_csv.file AS file, row_of_csv.content AS content
    FROM entry JOIN row_of_csv ON row_of_csv.{column} = key(entry.name)
    WHERE entry.reason IS NULL AND entry.rowid NOT IN (SELECT entry FROM match)
        AND row_of_csv.file NOT IN (SELECT file FROM row_of_csv JOIN match ON match.row = row_of_csv.id)
"""
SEVERAL_PICTURES = "SELECT file, min(name), max(name), count(DISTINCT name) AS n FROM pair GROUP BY file HAVING n > 1"
SEVERAL_LABELS = """
    SELECT name, min(file), max(file), count(DISTINCT content) AS n FROM pair GROUP BY name HAVING n > 1
"""
FIND_LABELLED = "SELECT 1 FROM entry WHERE (label NOT NULL OR extra != '') AND reason IS NULL LIMIT 1"
FIRST_NAME = "SELECT name FROM entry WHERE reason IS NULL ORDER BY name LIMIT 1"
FOLDERS_INSIDE = """
    SELECT min(inside), max(inside) FROM (
        SELECT folder(substr(name, ?1)) AS inside FROM entry
        WHERE reason IS NULL AND label NOT NULL AND substr(name, 1, ?2) = ?3
    )
"""
SET_LABELS = """
    UPDATE entry SET (label, extra) = (
        SELECT row_of_csv.label, row_of_csv.extra FROM match JOIN row_of_csv ON row = row_of_csv.id
        WHERE match.entry = entry.rowid
    )
"""
EXCLUDE_FILTERED = """
    UPDATE entry SET reason = 'filtered', detail = ? WHERE reason IS NULL AND rowid NOT IN
        (SELECT entry FROM match JOIN row_of_csv ON row = row_of_csv.id WHERE kept)
"""
COUNT_MATCHES = """
    SELECT (SELECT count(*) FROM row_of_csv), (SELECT count(*) FROM row_of_csv WHERE file IN
        (SELECT file FROM row_of_csv JOIN match ON match.row = row_of_csv.id)),
        (SELECT count(*) FROM entry WHERE reason IS NULL AND rowid NOT IN (SELECT entry FROM match))
"""


def folder_of(name: bytes) -> bytes | None:
    """Return the label by folder: the first folder of the path; None: the file lies in no folder."""
    first, slash, _ = name.partition(b"/")
    return first if slash else None


def check_folders(database: sqlite3.Connection) -> None:
    """Check that --labels folders gives a label to at least one file.

    Raises:
        DataError: no file lies in a folder.
    """
    labelled, listed = (database.execute(query).fetchone() for query in (FIND_LABELLED, FIRST_NAME))
    if listed and not labelled:
        raise DataError(
            f"--labels folders, but no file of the source lies in a folder, see {quote_name(listed[0])}: put the "
            "pictures of each class into a folder of its own, give a CSV, or leave --labels away"
        )


def find_wrapping_folder(database: sqlite3.Connection, prefix: bytes) -> bytes | None:
    """Return the folder that all labelled files lie in, if it has several folders, which are perhaps the classes meant.

    None: the labelled files lie in several folders, or in one without folders.

    Args:
        database: of the listing.
        prefix: what the names of the files of a source begin with.
    """
    database.create_function("folder", 1, folder_of, deterministic=True)
    around = prefix
    while True:
        first, last = database.execute(FOLDERS_INSIDE, (len(around) + 1, len(prefix), prefix)).fetchone()
        if first is None:
            return None
        if first != last:
            return around[len(prefix) :].rstrip(b"/") or None
        around += first + b"/"


def path_in_source(name: bytes) -> bytes:
    """Return the path in its source of a file, whose name begins with that of the source."""
    return name.partition(b"/")[2]


def last_part(name: bytes) -> bytes:
    """Return the last part of a path."""
    return name.rpartition(b"/")[2]


def stem_of_picture(name: bytes) -> bytes | None:
    """Return the last part of a path without its extension; None: that is not of a picture, such as .txt beside one."""
    start, dot, extension = last_part(name).rpartition(b".")
    return start if decode_name(dot + extension).lower() in Image.registered_extensions() else None


def fold_name(name: bytes | None) -> bytes | None:
    """Return a name without differences that people overlook: case, form of Unicode, kind of slashes, leading ./."""
    if name is None:
        return None
    try:
        plain = name.decode("utf-8")
    except UnicodeDecodeError:  # as in a table, which is read as Windows-1252 then
        plain = name.decode("cp1252", "surrogateescape")
    text = unicodedata.normalize("NFC", plain.replace("\\", "/")).casefold()
    return re.sub(r"^(\./+)+", "", text).encode("utf-8", "surrogateescape")


MATCH_KEYS: dict[str, Callable[[bytes], bytes | None]] = {
    "path": lambda name: name,
    "last part": last_part,
    "last part without extension": stem_of_picture,
}
"""The part of a picture's path that a row may name, the most exact one first."""
MATCH_KEYS_OF_SEVERAL = {"path": MATCH_KEYS["path"], "path in the source": path_in_source, **MATCH_KEYS}


def label_by_table(database: sqlite3.Connection, table: LabelTable, several: bool) -> None:
    """Label files by the row with their whole path, else with its last part, else with that without extension.

    Of several sources, a whole path begins with the name of the source; after it, the path in the source is compared.

    A row belongs to the file that it names most exactly: the exact keys come first, and what has matched is left out
    afterwards. So a whole path in a row is never taken for the last part of another file's path.

    Raises:
        DataError: a file has two labels, a row fits two files, or no row gives any file a label.
    """
    database.executescript(CREATE_TABLES)
    rows = ((row.file, fold_name(row.file), row.label, row.extra, row.kept) for row in table.rows())
    database.executemany("INSERT INTO row_of_csv (file, folded, label, extra, kept) VALUES (?, ?, ?, ?, ?)", rows)
    database.executescript(
        "CREATE INDEX row_by_file ON row_of_csv (file); CREATE INDEX row_by_folded ON row_of_csv (folded)"
    )
    if conflict := database.execute(FIND_CONFLICT).fetchone():
        raise DataError(f"{table.path} has rows with different labels for {quote_name(conflict[0])}: keep one of them")
    for column, form in ("file", lambda key: key), ("folded", fold_name):
        for what, key in (MATCH_KEYS_OF_SEVERAL if several else MATCH_KEYS).items():
            database.create_function("key", 1, lambda name, key=key, form=form: form(key(name)), deterministic=True)
            match_rows(database, table, what, column)
    database.execute(SET_LABELS)
    labelled, listed = (database.execute(query).fetchone() for query in (FIND_LABELLED, FIRST_NAME))
    if listed and not labelled:
        raise DataError(f"no row of {table.path} {explain_no_match(database, table, listed[0])}")
    filter_entries(database, table)


def filter_entries(database: sqlite3.Connection, table: LabelTable) -> None:
    """Exclude the files whose row has other values than --filter asks for, or that have no row.

    Raises:
        DataError: none is left.
    """
    if not table.filters:
        return
    wanted = " ".join(f"--filter {column}={value}" for column, value in table.filters)
    database.execute(EXCLUDE_FILTERED, (wanted,))
    if not database.execute(FIRST_NAME).fetchone():
        raise DataError(
            f"no row of {table.path} that names a file of the source fits {wanted}: write the values as there"
        )


def match_rows(database: sqlite3.Connection, table: LabelTable, what: str, column: str) -> None:
    """Match rows and files by one key.

    Args:
        database: of the listing.
        table: for messages.
        what: the key in words.
        column: "file", or "folded" to ignore case and the like.

    Raises:
        DataError: a row fits two pictures, or a picture two rows with different labels.
    """
    database.execute(MAKE_PAIRS.format(column=column))
    if several := database.execute(SEVERAL_PICTURES).fetchone():
        file, first, last, count = several
        raise DataError(
            f"{table.path}: the row of {quote_name(file)} fits the {what} of {count:,} files, {quote_name(first)} and "
            f"{quote_name(last)} for two: write their whole paths in column {table.file_column!r}"
        )
    if several := database.execute(SEVERAL_LABELS).fetchone():
        name, first, last, _ = several
        raise DataError(
            f"{table.path} has rows with different labels, {quote_name(first)} and {quote_name(last)}, for "
            f"{quote_name(name)}: keep one of them"
        )
    database.execute("INSERT INTO match SELECT entry, min(row) FROM pair GROUP BY entry")
    database.execute("DROP TABLE pair")


def explain_no_match(database: sqlite3.Connection, table: LabelTable, name: bytes) -> str:
    """Return why no file got a label, as the end of a message; `name` is a file of the source as an example."""
    used = count_matches(database)["rows_with_picture"]
    if used:
        return f"has a label: column {table.label_columns[0]!r} is empty in all {used:,} that name a file of the source"
    row = database.execute("SELECT file FROM row_of_csv ORDER BY id LIMIT 1").fetchone()
    return (
        f"names a file of the source: column {table.file_column!r} has {quote_name(row[0]) if row else 'nothing'}, the "
        f"source has {quote_name(name)}; its path, the last part of that, and that without extension were compared: "
        "name another column with --file-column, or mend the names"
    )


def count_matches(database: sqlite3.Connection) -> dict[str, int]:
    """Return the "labels" of index.json: rows with a file of the source, rows without one, and files without a row."""
    rows, used, alone = database.execute(COUNT_MATCHES).fetchone()
    return {"rows_with_picture": used, "rows_without_picture": rows - used, "pictures_without_row": alone}
