"""Write the sorted list of a source's files, with labels, into the database of a build.

It is a database on disk, so that memory does not grow with the number of pictures.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from shards.dataset.index import DataError, upgrade_settings
from shards.sources.label_names import normalise_label
from shards.sources.label_table import LabelTable
from shards.sources.labels import check_folders, count_matches, find_wrapping_folder, folder_of, label_by_table
from shards.sources.source import Source
from shards.sources.source_entry import SourceEntry, decode_name, encode_name, quote_name

USE_OTHER_FOLDER = "build into another folder"

CREATE_ENTRIES = "CREATE TABLE entry (name BLOB, place TEXT, reason TEXT, detail TEXT, label BLOB, extra TEXT)"
EXCLUDE_DUPLICATES = """
    UPDATE entry SET reason = 'duplicate_name', detail = 'a later member of this name' WHERE reason IS NULL AND rowid >
        (SELECT min(rowid) FROM entry AS other WHERE other.name = entry.name AND other.reason IS NULL)
"""
CREATE_LISTING = """
    CREATE TABLE listing (id INTEGER PRIMARY KEY, name BLOB, place TEXT, label BLOB, extra TEXT);
    INSERT INTO listing (name, place, label, extra)
        SELECT name, place, label, extra FROM entry WHERE reason IS NULL ORDER BY name;
    CREATE TABLE class (id INTEGER PRIMARY KEY, label BLOB UNIQUE);
    INSERT INTO class (label) SELECT DISTINCT label FROM listing WHERE label NOT NULL ORDER BY label;
    CREATE TABLE excluded (name BLOB, reason TEXT, detail TEXT);
    INSERT INTO excluded SELECT name, reason, detail FROM entry WHERE reason NOT NULL;
    CREATE TABLE piece (
        split INTEGER, number INTEGER, record TEXT, rows BLOB, positions BLOB, facts BLOB, prints BLOB,
        PRIMARY KEY (split, number)
    );
    CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT);
"""


def write_listing(
    path: Path, source: Source, labels: str | LabelTable, settings: dict[str, Any], on_entry: Callable[[int], None]
) -> bytes | None:
    """Write the database of a build; return what `find_wrapping_folder` finds, with labels by folder.

    Args:
        path: of the new database.
        source: what to list.
        labels: "none", "folders" or a table.
        settings: of the build, which are kept.
        on_entry: called with the number of files listed so far.

    Raises:
        DataError: the source or the table of labels is damaged.
    """
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.executescript(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF"
    )  # fast and unsafe: after a kill the listing is written again anyway
    database.execute(CREATE_ENTRIES)
    rows = (
        (entry.name, entry.place, entry.reason, entry.detail, folder_label(entry.name, settings))
        for entry in scan_and_count(source, on_entry)
    )
    database.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, '')", rows)
    database.execute("CREATE INDEX entry_by_name ON entry (name)")
    database.execute(EXCLUDE_DUPLICATES)
    matched, wrapping = label_entries(database, labels)
    facts = {"settings": settings, "matching": matched}
    database.executescript(CREATE_LISTING)
    database.executemany("INSERT INTO fact VALUES (?, ?)", ((name, json.dumps(fact)) for name, fact in facts.items()))
    database.executescript("DROP TABLE entry; DROP TABLE IF EXISTS match; DROP TABLE IF EXISTS row_of_csv")
    database.commit()
    database.close()
    return wrapping


def copy_listing(listing: Path, path: Path, settings: dict[str, Any]) -> None:
    """Copy a new listing for a build with other settings of the same files and labels."""
    shutil.copyfile(listing, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE fact SET value = ? WHERE name = 'settings'", (json.dumps(settings),))


def label_entries(database: sqlite3.Connection, labels: str | LabelTable) -> tuple[dict[str, int] | None, bytes | None]:
    """Label the listed files; return the counts of matches with a table, and the wrapping folder with folders.

    Raises:
        DataError: no file gets a label, or one gets two.
    """
    if labels == "folders":
        check_folders(database)
        return None, find_wrapping_folder(database)
    database.execute("UPDATE entry SET label = NULL")
    if not isinstance(labels, LabelTable):
        return None, None
    label_by_table(database, labels)
    return count_matches(database), None


def folder_label(name: bytes, settings: dict[str, Any]) -> bytes | None:
    """Return the label by folder, normalised if the settings say so."""
    label = folder_of(name)
    if label is None or not settings.get("normalise_labels"):
        return label
    return encode_name(normalise_label(decode_name(label)))


def scan_and_count(source: Source, on_entry: Callable[[int], None]) -> Iterator[SourceEntry]:
    """Yield what the source lists, and call on_entry with the number of each entry."""
    for number, entry in enumerate(source.scan(), 1):
        on_entry(number)
        yield entry


def compare_listings(old: Path, new: Path) -> None:
    """Check that a build can be resumed: same settings, same files.

    Raises:
        DataError: the settings or the source differ; the message names the first difference.
    """
    database = sqlite3.connect(old)
    try:
        database.execute("ATTACH ? AS new", (str(new),))
        facts = ("SELECT value FROM fact WHERE name = 'settings'", "SELECT value FROM new.fact WHERE name = 'settings'")
        compare_settings(*(json.loads(database.execute(fact).fetchone()[0]) for fact in facts))
        for first, second, what in (("new", "main", "is new or changed"), ("main", "new", "is gone")):
            lists = (f"SELECT name, place, label, extra FROM {schema}.listing" for schema in (first, second))
            row = database.execute(f"SELECT name FROM ({' EXCEPT '.join(lists)}) ORDER BY name").fetchone()
            if row:
                raise DataError(
                    f"the source has changed since this build began: {quote_name(row[0])} {what}; {USE_OTHER_FOLDER}"
                )
    finally:
        database.close()


def compare_settings(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that a resumed build has the settings that it began with.

    Raises:
        DataError: naming the first one that differs.
    """
    if "holdout_by" not in before:
        raise DataError(
            "this build is of an earlier version, which drew the hold-out by the names of the pictures; this "
            f"version draws it by their pixels. A finished dataset is used as it is; else, {USE_OTHER_FOLDER}"
        )
    before = upgrade_settings(before)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise DataError(
                f"this build began with {name} {before.get(name)!r}, and now it is {now.get(name)!r}: "
                f"resume with the same settings, or {USE_OTHER_FOLDER}"
            )
