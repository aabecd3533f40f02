"""The record of a build in progress: its listing, and what became of each finished shard, in one database on disk."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.building.shard import Listed, ShardResult, ShardTask
from shards.building.statistics import Tally
from shards.sources.listing import SPLITS
from shards.sources.source_entry import to_bytes, to_text

DEADLY = "CREATE TABLE IF NOT EXISTS deadly (position INTEGER PRIMARY KEY, reason TEXT, detail TEXT)"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")


@dataclass(frozen=True)
class Reason:
    """How many files were excluded for it, and the first of them."""

    count: int
    name: str
    detail: str


@dataclass(frozen=True)
class Exclusions:
    """What was excluded."""

    reasons: Mapping[str, Reason]
    archives: int
    """Those of them with the name of an archive."""
    archive: str
    """The first of these."""

    @property
    def count(self) -> int:
        """All of them."""
        return sum(reason.count for reason in self.reasons.values())


class BuildDb:
    """A build's database: what `record` was given survives any kill.

    Args:
        path: of the database that `write_listing` wrote.
    """

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute("PRAGMA synchronous = FULL")
        self.database.execute(DEADLY)
        query = "SELECT split, count(*) FROM listing GROUP BY split"
        self.pictures = {split: count for split, count in self.database.execute(query)}
        self.labels = [to_text(label) for (label,) in self.database.execute("SELECT label FROM class ORDER BY id")]

    def close(self) -> None:
        """Let others open it."""
        self.database.close()

    def fact(self, name: str) -> Any:
        """Return what the listing noted: "settings" or "matching"."""
        return json.loads(self.database.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()[0])

    def to_do(self, shard_samples: int) -> tuple[int, int, int]:
        """Return the number of all pictures, of those still to look at, and of the jobs that these are in."""
        sizes = [len(job) for *_, job in self.open_ranges(shard_samples)]
        return sum(self.pictures.values()), sum(sizes), len(sizes)

    def open_jobs(self, shard_samples: int) -> Iterator[ShardTask]:
        """Yield the jobs that are still to do."""
        for split, number, rows in self.open_ranges(shard_samples):
            yield ShardTask(split, number, [*self.listed(rows)])

    def open_ranges(self, shard_samples: int) -> Iterator[tuple[int, int, range]]:
        """Yield split, number and rows of the listing of each job that is still to do."""
        done = set(self.database.execute("SELECT split, number FROM piece"))
        end = 0
        for split in range(len(SPLITS)):  # the listing is sorted by split
            start, end = end, end + self.pictures.get(split, 0)
            for number, first in enumerate(range(start, end, shard_samples)):
                if (split, number) not in done:
                    yield split, number, range(first, min(first + shard_samples, end))

    def listed(self, rows: range) -> Iterator[Listed]:
        """Yield rows of the listing, which it counts from 1."""
        query = """
            SELECT position, name, place, class.id - 1, class.label, reason, detail FROM listing
            LEFT JOIN class ON class.label = listing.label LEFT JOIN deadly USING (position)
            WHERE listing.id > ? AND listing.id <= ? ORDER BY listing.id
        """
        for position, name, place, label, label_name, *verdict in self.database.execute(query, (rows.start, rows.stop)):
            label_text = None if label_name is None else to_text(label_name)
            yield Listed(position, name, place, label, label_text, tuple(verdict) if verdict[0] else None)

    def leave_out(self, picture: Listed, reason: str, detail: str) -> None:
        """Keep, durably, that a picture ends the process that decodes it: it is not opened again."""
        self.database.execute("INSERT INTO deadly VALUES (?, ?, ?)", (picture.position, reason, detail))

    def record(self, job: ShardTask, piece: ShardResult) -> None:
        """Keep what became of a job, durably."""
        record = {"samples": piece.samples, "bytes": piece.length, "sha256": piece.sha256, "tally": piece.tally}
        excluded = [(to_bytes(name), reason, detail) for name, reason, detail in piece.excluded]
        row = (job.split, job.number, json.dumps(record), piece.rows)
        self.database.execute("BEGIN")
        self.database.executemany("INSERT INTO excluded VALUES (?, ?, ?)", excluded)
        self.database.execute("INSERT INTO piece VALUES (?, ?, ?, ?)", row)
        self.database.execute("COMMIT")

    def pieces(self) -> Iterator[tuple[int, int, ShardResult]]:
        """Yield what became of all jobs so far: split, number, piece (its exclusions are in `excluded`)."""
        for split, number, record, rows in self.database.execute("SELECT * FROM piece ORDER BY split, number"):
            facts = json.loads(record)
            piece = ShardResult(facts["samples"], facts["bytes"], facts["sha256"], rows, [], Tally(facts["tally"]))
            yield split, number, piece

    def excluded(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, reason and detail of all files that were excluded so far, sorted."""
        query = "SELECT name, reason, detail FROM excluded ORDER BY name, reason, detail"
        for name, reason, detail in self.database.execute(query):
            yield to_text(name), reason, detail

    def exclusions(self) -> Exclusions:
        """Return a survey of the excluded files."""
        query = "SELECT reason, count(*), min(name), detail FROM excluded GROUP BY reason ORDER BY reason"
        reasons = {
            reason: Reason(count, to_text(name), detail) for reason, count, name, detail in self.database.execute(query)
        }
        like = " OR ".join(f"CAST(name AS TEXT) LIKE '%{ending}'" for ending in ARCHIVES)
        query = f"SELECT count(*), min(name) FROM excluded WHERE ({like}) AND reason != 'hidden'"
        archives, name = self.database.execute(query).fetchone()
        return Exclusions(reasons, archives, to_text(name or b""))
