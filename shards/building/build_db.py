"""The database of a build in progress: the listed pictures, and the result of each finished shard.

SQLite keeps memory constant for any number of pictures, and its transactions survive any kill.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.building.holdout import TRAIN
from shards.building.part import ListedPicture, PartResult
from shards.building.shard import ShardResult, ShardTask
from shards.building.share_results import Share, numbers_done, open_results
from shards.building.statistics import Statistics
from shards.images.fingerprint import PRINT
from shards.sources.source_entry import decode_name, encode_name

# Builds that began before there was --add have none of these.
CREATE_KEPT = "CREATE TABLE IF NOT EXISTS kept_excluded (name BLOB, reason TEXT, detail TEXT)"
ALL_EXCLUDED = "(SELECT * FROM excluded UNION ALL SELECT * FROM kept_excluded)"
RESULTS = "piece"  # the table of the results
CREATE_CRASHES = "CREATE TABLE IF NOT EXISTS deadly (position INTEGER PRIMARY KEY, reason TEXT, detail TEXT)"
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")


@dataclass(frozen=True)
class ExcludedForReason:
    """How many files were excluded for one reason, and the first of them as an example."""

    count: int
    name: str
    detail: str


@dataclass(frozen=True)
class Exclusions:
    """All excluded files, summarized."""

    reasons: Mapping[str, ExcludedForReason]
    archives: int
    """Excluded files with the name of an archive."""
    archive: str
    """The first of these archives; empty: there is none."""

    @property
    def count(self) -> int:
        """Excluded files in all."""
        return sum(reason.count for reason in self.reasons.values())


class BuildDb:
    """The open database of a build.

    Args:
        path: of the database that `sources.listing.write_listing` wrote.
        share: of the tasks, which has its results in a database of its own; None: all of them.
    """

    def __init__(self, path: Path, share: Share | None = None) -> None:
        self.share = share
        if share is None:
            # No transactions but those that are begun below.
            self.database = sqlite3.connect(path, isolation_level=None)
            self.database.execute("PRAGMA synchronous = FULL")  # each COMMIT is on the disk before it returns
            self.database.execute(CREATE_CRASHES)
            self.database.execute(CREATE_KEPT)
        else:
            self.database = open_results(share, path, RESULTS)
        (self.pictures,) = self.database.execute("SELECT count(*) FROM listing").fetchone()
        self.labels = [decode_name(label) for (label,) in self.database.execute("SELECT label FROM class ORDER BY id")]

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def read_fact(self, name: str) -> Any:
        """Return a fact that the listing stored, by its name: "settings", "matching", "first_key" or "first_shard".

        None: it stored none of this name.
        """
        row = self.database.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    @cached_property
    def first_key(self) -> int:
        """The key of the first listed picture; the dataset that pictures are added to has the keys before it."""
        return self.read_fact("first_key") or 0

    def open_ranges(self, shard_samples: int) -> Iterator[tuple[int, range]]:
        """Yield number and listing rows (from 0) of each task without a result."""
        done = numbers_done(self.database, RESULTS)
        yield from (task for task in self.task_ranges(shard_samples) if task[0] not in done)

    def task_ranges(self, shard_samples: int) -> Iterator[tuple[int, range]]:
        """Yield number and listing rows (from 0) of each task."""
        for number in self.share.tasks if self.share else range(-(-self.pictures // shard_samples)):
            yield number, self.task_rows(number, shard_samples)

    def task_rows(self, number: int, shard_samples: int) -> range:
        """Return the listing rows (from 0) of a task."""
        first = number * shard_samples
        return range(first, min(first + shard_samples, self.pictures))

    def places(self) -> Iterator[str]:
        """Yield where each listed picture lies, as its source knows it."""
        yield from (place for (place,) in self.database.execute("SELECT place FROM listing ORDER BY id"))

    def read_listing(self, rows: range) -> Iterator[ListedPicture]:
        """Yield the pictures of these rows, counted from 0."""
        # listing.id is the key + 1, so rows start to stop - 1 have the ids start + 1 to stop, more with first_key.
        query = """
            SELECT listing.id - 1, name, place, class.id - 1, class.label, extra, reason, detail FROM listing
            LEFT JOIN class ON class.label = listing.label LEFT JOIN deadly ON deadly.position = listing.id - 1
            WHERE listing.id > ? AND listing.id <= ? ORDER BY listing.id
        """
        found = self.database.execute(query, (rows.start + self.first_key, rows.stop + self.first_key))
        for position, name, place, label, label_name, extra, *exclusion in found:
            label_text, known = label_name and decode_name(label_name), tuple(exclusion) if exclusion[0] else None
            yield ListedPicture(position, name, place, label, label_text, extra or "", known)

    def name_at(self, position: int) -> str:
        """Return the name of the file at a place of the listing, counted from 0."""
        row = self.database.execute("SELECT name FROM listing WHERE id = ?", (position + 1,)).fetchone()
        return decode_name(row[0])

    def extras(self, positions: list[int]) -> Iterator[dict[str, Any]]:
        """Yield the further labels of the pictures at ascending places of the listing."""
        wanted = iter(positions)
        query = "SELECT id - 1, extra FROM listing WHERE id BETWEEN ? AND ? ORDER BY id"
        rows = self.database.execute(query, (positions[0] + 1, positions[-1] + 1))
        for place in wanted:
            extra = next(extra for position, extra in rows if position == place)
            yield json.loads(extra) if extra else {}

    def vector_length(self) -> int:
        """Return the length of the vectors that are the labels; 0: they are none."""
        row = self.database.execute("""SELECT extra FROM listing WHERE extra LIKE '{"vector"%' LIMIT 1""").fetchone()
        return len(json.loads(row[0])["vector"]) if row else 0

    def record_crash(self, picture: ListedPicture, reason: str, detail: str) -> None:
        """Store, durably, that decoding a picture crashes the process: it is never opened again."""
        self.database.execute("INSERT INTO deadly VALUES (?, ?, ?)", (picture.position, reason, detail))

    def record_result(self, task: ShardTask, result: ShardResult) -> None:
        """Store the result of a task and its exclusions, durably and in one transaction."""
        excluded = [(encode_name(name), reason, detail) for name, reason, detail in result.excluded]
        rows = [
            (split, task.number, json.dumps(record_of(part)), part.rows, part.positions, pack(part.facts), part.prints)
            for split, part in enumerate(result.parts)
        ]
        self.database.execute("BEGIN")
        self.database.executemany("INSERT INTO excluded VALUES (?, ?, ?)", excluded)
        self.database.executemany("INSERT INTO piece VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self.database.execute("COMMIT")

    def parts(self) -> Iterator[tuple[int, int, PartResult]]:
        """Yield split, task number and result of all finished parts, sorted by these; without facts and prints."""
        for split, number, record, rows, positions in self.database.execute(
            "SELECT split, number, record, rows, positions FROM piece ORDER BY split, number"
        ):
            facts = json.loads(record)
            statistics = Statistics(facts.pop("statistics"))
            yield split, number, PartResult(**facts, rows=rows, positions=positions, statistics=statistics)

    def trained(self) -> Iterator[tuple[int, int]]:
        """Yield the number of each finished task and its samples to train on."""
        query = f"SELECT number, json_extract(record, '$.samples') FROM piece WHERE split = {TRAIN}"
        yield from self.database.execute(query)

    def facts(self, split: int, number: int) -> list[Statistics]:
        """Return the facts of each sample of a part."""
        row = self.database.execute(
            "SELECT facts FROM piece WHERE split = ? AND number = ?", (split, number)
        ).fetchone()
        return [Statistics(facts) for facts in json.loads(zlib.decompress(row[0]))]

    def prints(self, split: int, number: int) -> npt.NDArray[np.void]:
        """Return the fingerprints of the samples of a part: (samples,) of fingerprint.PRINT."""
        query = "SELECT prints FROM piece WHERE split = ? AND number = ?"
        return np.frombuffer(self.database.execute(query, (split, number)).fetchone()[0], dtype=PRINT)

    def record_left_out(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Store name, reason and detail of what deduplication leaves out, durably, in place of earlier decisions."""
        excluded = ((encode_name(name), reason, detail) for name, reason, detail in rows)
        self.database.execute("BEGIN")
        self.database.execute("DELETE FROM excluded WHERE reason IN ('duplicate', 'near_duplicate')")
        self.database.executemany("INSERT INTO excluded VALUES (?, ?, ?)", excluded)
        self.database.execute("COMMIT")

    def excluded(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, reason and detail of all excluded files, sorted."""
        query = f"SELECT name, reason, detail FROM {ALL_EXCLUDED} ORDER BY name, reason, detail"
        for name, reason, detail in self.database.execute(query):
            yield decode_name(name), reason, detail

    def count_exclusions(self) -> Exclusions:
        """Count the excluded files by reason."""
        query = f"SELECT reason, count(*), min(name), detail FROM {ALL_EXCLUDED} GROUP BY reason ORDER BY reason"
        reasons = {
            reason: ExcludedForReason(count, decode_name(name), detail)
            for reason, count, name, detail in self.database.execute(query)
        }
        like = " OR ".join(f"CAST(name AS TEXT) LIKE '%{ending}'" for ending in ARCHIVE_SUFFIXES)
        query = f"SELECT count(*), min(name) FROM {ALL_EXCLUDED} WHERE ({like}) AND reason != 'hidden'"
        archives, name = self.database.execute(query).fetchone()
        return Exclusions(reasons, archives, decode_name(name or b""))


def pack(facts: list[Statistics]) -> bytes:
    """Return the facts of the samples as compressed JSON."""
    return zlib.compress(json.dumps(facts).encode("ascii"))


def record_of(part: PartResult) -> dict[str, Any]:
    """Return what the database keeps of a part as JSON."""
    return {
        "samples": part.samples,
        "length": part.length,
        "end": part.end,
        "sha256": part.sha256,
        "statistics": part.statistics,
    }
