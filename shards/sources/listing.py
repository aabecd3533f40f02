"""The sorted list of a source's files, in a database on disk: memory does not grow with the number of pictures."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shards.dataset.index import DataError
from shards.sources.label_table import Csv
from shards.sources.labels import check_folders, folder_of, label_by_csv, matching, only_folder
from shards.sources.source import Source
from shards.sources.source_entry import Found, to_show

SPLITS = ("train", "holdout")
ELSEWHERE = "build into another folder"

FOUND = "CREATE TABLE found (name BLOB, place TEXT, target BLOB, reason TEXT, detail TEXT, label BLOB)"
DUPLICATES = """
    UPDATE found SET reason = 'duplicate_name', detail = 'a later member of this name' WHERE reason IS NULL AND rowid >
        (SELECT min(rowid) FROM found AS other WHERE other.name = found.name AND other.reason IS NULL)
"""
SORTED = """
    CREATE TABLE listing (id INTEGER PRIMARY KEY, split INTEGER, position INTEGER, name BLOB, place TEXT, label BLOB);
    INSERT INTO listing (split, position, name, place, label)
        SELECT split(coalesce(target, name)) AS side, row_number() OVER (ORDER BY name) - 1, name, place, label
        FROM found WHERE reason IS NULL ORDER BY side, name;
    CREATE TABLE class (id INTEGER PRIMARY KEY, label BLOB UNIQUE);
    INSERT INTO class (label) SELECT DISTINCT label FROM listing WHERE label NOT NULL ORDER BY label;
    CREATE TABLE excluded (name BLOB, reason TEXT, detail TEXT);
    INSERT INTO excluded SELECT name, reason, detail FROM found WHERE reason NOT NULL;
    CREATE TABLE piece (split INTEGER, number INTEGER, record TEXT, rows BLOB, PRIMARY KEY (split, number));
    CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT);
"""


def is_held_out(name: bytes, seed: int, share: float) -> bool:
    """Draw whether a picture is held out: by its name and the seed, whatever other pictures there are."""
    digest = hashlib.blake2b(name, digest_size=8, key=seed.to_bytes(16, "little", signed=True), person=b"holdout")
    return int.from_bytes(digest.digest(), "little") < share * 2**64


def write_listing(
    path: Path, source: Source, labels: str | Csv, settings: dict[str, Any], on_found: Callable[[int], None]
) -> bytes | None:
    """Write the database of a build, and return the folder that is the only class by folders, but has several itself.

    Args:
        path: of the new database.
        source: what to list.
        labels: "none", "folders" or a table.
        settings: of the build; "seed" and "holdout" decide the split, all of them are kept.
        on_found: told how many files were found so far.

    Raises:
        DataError: the source or the table of labels is damaged.
    """
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")  # a half written listing is useless
    database.execute(FOUND)
    rows = (
        (found.name, found.place, found.target, found.reason, found.detail, folder_of(found.name))
        for found in counted(source, on_found)
    )
    database.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?)", rows)
    database.execute("CREATE INDEX found_by_name ON found (name)")
    database.execute(DUPLICATES)
    matched, wrapping = label_files(database, labels)
    facts = {"settings": settings, "matching": matched}
    seed, share = settings["seed"], settings["holdout"]
    database.create_function("split", 1, lambda name: int(is_held_out(name, seed, share)), deterministic=True)
    database.executescript(SORTED)
    database.executemany("INSERT INTO fact VALUES (?, ?)", ((name, json.dumps(fact)) for name, fact in facts.items()))
    database.executescript("DROP TABLE found; DROP TABLE IF EXISTS match; DROP TABLE IF EXISTS row_of_csv")
    database.commit()
    database.close()
    return wrapping


def label_files(database: sqlite3.Connection, labels: str | Csv) -> tuple[dict[str, int] | None, bytes | None]:
    """Label what was found, and return how rows and files matched, and what `write_listing` returns.

    Raises:
        DataError: nothing gets a label, or something two.
    """
    if labels == "folders":
        check_folders(database)
        return None, only_folder(database)
    database.execute("UPDATE found SET label = NULL")
    if not isinstance(labels, Csv):
        return None, None
    label_by_csv(database, labels)
    return matching(database), None


def counted(source: Source, on_found: Callable[[int], None]) -> Iterator[Found]:
    """Yield what the source lists and report how much it is."""
    for number, found in enumerate(source.scan(), 1):
        on_found(number)
        yield found


def compare_listings(old: Path, new: Path) -> None:
    """Check that a build can go on.

    Raises:
        DataError: the settings or the source differ; the message names the first difference.
    """
    database = sqlite3.connect(old)
    try:
        database.execute("ATTACH ? AS new", (str(new),))
        facts = ("SELECT value FROM fact WHERE name = 'settings'", "SELECT value FROM new.fact WHERE name = 'settings'")
        compare_settings(*(json.loads(database.execute(fact).fetchone()[0]) for fact in facts))
        for first, second, what in (("new", "main", "is new or changed"), ("main", "new", "is gone")):
            lists = (f"SELECT name, place, label FROM {schema}.listing" for schema in (first, second))
            row = database.execute(f"SELECT name FROM ({' EXCEPT '.join(lists)}) ORDER BY name").fetchone()
            if row:
                raise DataError(f"the source has changed since this build began: {to_show(row[0])} {what}; {ELSEWHERE}")
    finally:
        database.close()


def compare_settings(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that a build has the settings that it began with.

    Raises:
        DataError: the first one that differs.
    """
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise DataError(
                f"this build began with {name} {before.get(name)!r}, and now it is {now.get(name)!r}: "
                f"resume with the same settings, or {ELSEWHERE}"
            )
