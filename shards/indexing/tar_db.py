"""The database of an indexing in progress: the result of each tar. A transaction survives any kill."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.building.build_db import ExcludedForReason, Exclusions
from shards.building.share_results import Share, numbers_done, open_results
from shards.building.statistics import Statistics
from shards.errors import DataError
from shards.indexing.patterns import Tars
from shards.indexing.tar_index import FOUND, TarResult, TarTask
from shards.sources.listing import USE_OTHER_FOLDER, compare_settings

RESULTS = "tar"  # the table of the results
CREATE = """
    CREATE TABLE IF NOT EXISTS begun (settings TEXT, root TEXT, names TEXT);
    CREATE TABLE IF NOT EXISTS tar (number INTEGER PRIMARY KEY, length INTEGER, sha256 TEXT, found BLOB, told BLOB);
    CREATE TABLE IF NOT EXISTS excluded (name TEXT, reason TEXT, detail TEXT);
    CREATE TABLE IF NOT EXISTS deadly (tar INTEGER, picture INTEGER, reason TEXT, detail TEXT);
"""


class TarDb:
    """The open database.

    Args:
        path: of the file; it is made if it is not there.
        tars: that are indexed.
        settings: of the indexing.
        share: of the tars, which has its results in a database of its own; None: all of them.

    Raises:
        DataError: it was begun with other tars or other settings.
    """

    def __init__(self, path: Path, tars: Tars, settings: dict[str, Any], share: Share | None = None) -> None:
        self.tars, self.share = tars, share
        if share is None:
            self.database = sqlite3.connect(path, isolation_level=None)
            self.database.execute("PRAGMA synchronous = FULL")  # each COMMIT is on the disk before it returns
            self.database.executescript(CREATE)
        else:
            self.database = open_results(share, path, RESULTS)
        begun = self.database.execute("SELECT settings, root, names FROM begun").fetchone()
        if begun is None:
            row = json.dumps(settings), str(tars.root), json.dumps(tars.names)
            self.database.execute("INSERT INTO begun VALUES (?, ?, ?)", row)
            return
        compare_settings(json.loads(begun[0]), settings)
        if (begun[1], tuple(json.loads(begun[2]))) != (str(tars.root), tars.names):
            raise DataError(f"the tars are not those with which this began: name the same ones, or {USE_OTHER_FOLDER}")

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def open_tasks(self) -> list[TarTask]:
        """Return the tasks without a result."""
        done = numbers_done(self.database, RESULTS)
        numbers = self.share.tasks if self.share else range(len(self.tars.names))
        return [self.task(number) for number in numbers if number not in done]

    def task(self, number: int) -> TarTask:
        """Return the task of a tar."""
        deadly = self.database.execute("SELECT picture, reason, detail FROM deadly WHERE tar = ?", (number,)).fetchall()
        return TarTask(number, self.tars.names[number], tuple(deadly))

    def record_crash(self, task: TarTask, picture: int, reason: str, detail: str) -> None:
        """Store, durably, that decoding a picture crashes the process: it is never opened again."""
        self.database.execute("INSERT INTO deadly VALUES (?, ?, ?, ?)", (task.number, picture, reason, detail))

    def record(self, task: TarTask, result: TarResult) -> None:
        """Store the result of a task, durably."""
        told = json.dumps([result.names, result.labels, result.facts]).encode("ascii")
        row = task.number, result.length, result.sha256, result.found, zlib.compress(told)
        excluded = [[ascii_name(name), reason, ascii_name(detail)] for name, reason, detail in result.excluded]
        self.database.execute("BEGIN")
        self.database.execute("INSERT INTO tar VALUES (?, ?, ?, ?, ?)", row)
        self.database.executemany("INSERT INTO excluded VALUES (?, ?, ?)", excluded)
        self.database.execute("COMMIT")

    def found(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield the samples of each tar, (n,) of FOUND, in the order of the tars."""
        for (found,) in self.database.execute("SELECT found FROM tar ORDER BY number"):
            yield np.frombuffer(found, FOUND)

    def results(self) -> Iterator[tuple[str, TarResult]]:
        """Yield name and result of each tar, in the order of the tars; without what is excluded."""
        query = "SELECT number, length, sha256, found, told FROM tar ORDER BY number"
        for number, length, sha256, found, told in self.database.execute(query):
            names, labels, facts = json.loads(zlib.decompress(told))
            yield self.tars.names[number], TarResult(length, sha256, found, names, labels, list(map(Statistics, facts)))

    def names(self, numbers: npt.NDArray[np.int64]) -> dict[int, str]:
        """Return the names of samples, which are numbered over all tars."""
        names, first, wanted = dict[int, str](), 0, np.unique(numbers)
        for tar, result in self.results():
            here = wanted[slice(*np.searchsorted(wanted, (first, first + len(result.names))))]
            names |= {number: f"{tar}/{result.names[number - first]}" for number in here.tolist()}
            first += len(result.names)
        return names

    def leave_out(self, rows: Iterable[tuple[str, str]]) -> None:
        """Exclude duplicates, of name and detail, in place of earlier decisions."""
        self.database.execute("BEGIN")
        self.database.execute("DELETE FROM excluded WHERE reason = 'duplicate'")
        excluded = ([ascii_name(name), "duplicate", ascii_name(detail)] for name, detail in rows)
        self.database.executemany("INSERT INTO excluded VALUES (?, ?, ?)", excluded)
        self.database.execute("COMMIT")

    def excluded(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, reason and detail of all that is excluded, sorted."""
        for name, reason, detail in self.database.execute("SELECT * FROM excluded ORDER BY name, reason, detail"):
            yield json.loads(name), reason, json.loads(detail)

    def count_exclusions(self) -> Exclusions:
        """Count what is excluded by reason."""
        query = "SELECT reason, count(*), min(name), detail FROM excluded GROUP BY reason ORDER BY reason"
        reasons = {
            reason: ExcludedForReason(count, json.loads(name), json.loads(detail))
            for reason, count, name, detail in self.database.execute(query)
        }
        return Exclusions(reasons, 0, "")


def ascii_name(text: str) -> str:
    """Return a text as JSON: SQLite stores no lone surrogates, which names that are not UTF-8 have."""
    return json.dumps(text)
