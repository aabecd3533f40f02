"""Results of one share of a dataset's work, in a database of their own, until they are taken into that of the whole.

Several jobs make the shares of one dataset at the same time, on several nodes. SQLite cannot have several writers on a
network file system, so each job writes a file that is only its own, and reads the database of the whole, which nobody
writes meanwhile.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SUFFIX = ".share"
SCHEMA = "SELECT sql FROM listed.sqlite_master WHERE type = 'table' AND name = ?"
TABLES = "SELECT name FROM {}.sqlite_master WHERE type = 'table'"


@dataclass(frozen=True)
class Share:
    """A part of the tasks."""

    tasks: range
    """Their numbers; those that are done already are left out."""
    name: str
    """Of the database of its results, in the folder of what is unfinished; it is made if it is not there."""


def open_results(share: Share, whole: Path, table: str) -> sqlite3.Connection:
    """Open the database of a share; that of the whole, of which nothing is written, is "listed" in it.

    Args:
        share: of the work.
        whole: the path of the database of all work.
        table: that holds the results, by their "number".
    """
    database = sqlite3.connect(whole.with_name(share.name + SUFFIX), isolation_level=None, uri=True)
    database.execute("PRAGMA synchronous = FULL")  # each COMMIT is on the disk before it returns
    # immutable: without locks, which a network file system may not have.
    database.execute("ATTACH ? AS listed", (f"file:{quote(str(whole.resolve()))}?immutable=1",))
    there = names_in(database, "main")
    for name in tables_of(table):
        # A name without a schema before it is that of the share, where both have the table.
        if name not in there:
            database.execute(database.execute(SCHEMA, (name,)).fetchone()[0])
    return database


def tables_of(table: str) -> tuple[str, ...]:
    """Return the tables that a share writes; that of the results is the first."""
    return table, "excluded", "deadly"


def names_in(database: sqlite3.Connection, schema: str) -> set[str]:
    """Return the names of the tables of a schema: "main", or an attached database."""
    return {name for (name,) in database.execute(TABLES.format(schema))}


def numbers_done(database: sqlite3.Connection, table: str) -> set[int]:
    """Return the tasks that have a result, in a share or in the whole."""
    schemas = [name for _, name, _ in database.execute("PRAGMA database_list") if name in ("main", "listed")]
    return {number for schema in schemas for (number,) in database.execute(f"SELECT number FROM {schema}.{table}")}


def merge_shares(database: sqlite3.Connection, work: Path, table: str) -> None:
    """Take the results of all shares into the database of the whole, durably, and remove their files.

    Args:
        database: of the whole.
        work: the folder with those of the shares.
        table: that holds the results, by their "number".
    """
    for path in sorted(work.glob(f"*{SUFFIX}")):
        database.execute("ATTACH ? AS share", (str(path),))
        try:
            merge_share(database, table)
        finally:
            database.execute("DETACH share")
        path.unlink()


def merge_share(database: sqlite3.Connection, table: str) -> None:
    """Take the results of the attached share, unless a merge that was killed afterwards has done so already."""
    there = names_in(database, "share")
    if not there.issuperset(tables_of(table)):
        return  # its process was killed before it had made them, so it has no result
    query = f"SELECT 1 FROM share.{table} WHERE number IN (SELECT number FROM main.{table}) LIMIT 1"
    if database.execute(query).fetchone():
        return
    database.execute("BEGIN")
    for name in tables_of(table):
        database.execute(f"INSERT OR IGNORE INTO main.{name} SELECT * FROM share.{name}")
    database.execute("COMMIT")
