"""The finished dataset that a build adds to: its shards are taken over as they are, before those of the new pictures.

Its table and the like are read where they are, or in copies in the work folder; everything is compared with its hash.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.building.holdout import SPLITS, TRAIN
from shards.building.kept_shard import KeptShard
from shards.building.old_files import damage, fetch_file
from shards.dataset.cache_settings import CacheSettings
from shards.dataset.facts import read_facts
from shards.dataset.files import EXCLUDED, INDEX, LABELS, TABLE
from shards.dataset.index import ORIGINAL, Index, parse_index, read_index
from shards.dataset.table import map_table
from shards.errors import DataError
from shards.sources.listing import Kept
from shards.sources.source_entry import encode_name
from shards.storage.place import Place
from shards.storage.storage import open_storage

ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class OldDataset:
    """A finished dataset that pictures are added to."""

    index: Index
    """Its table is here, in memory or mapped."""
    work: Path
    """The folder for copies of its files."""

    @property
    def samples(self) -> int:
        """All samples."""
        return len(self.index.table)

    @cached_property
    def labels(self) -> npt.NDArray[np.void] | None:
        """The rows of labels.npy; None: there is none."""
        attributes = self.index.content.get("attributes")
        if attributes is None:
            return None
        path = fetch_file(self.index.path, LABELS, attributes["sha256"], self.work)
        rows: npt.NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
        return rows

    def class_columns(self) -> dict[str, dict[str, int]]:
        """Return the classes of the further label columns, and their samples, in the order of their numbers."""
        columns = self.index.content.get("attributes", {}).get("columns", [])
        return {
            column["name"]: dict(zip(column["classes"], column["counts"], strict=True))
            for column in columns
            if column["kind"] == "class"
        }

    def vector_length(self) -> int:
        """Return the length of the vectors that are the labels; 0: they are none."""
        columns = self.index.content.get("attributes", {}).get("columns", [])
        return sum(column["length"] for column in columns if column["kind"] == "vector")

    def kept(self) -> Kept:
        """Return what the listing of the new pictures takes over."""
        return Kept(self.first_key(), self.count_shards()[TRAIN], self.excluded())

    def first_key(self) -> int:
        """Return the key behind the last one; keys ascend on each side."""
        lasts = [split.first + split.samples - 1 for split in self.index.splits.values() if split.samples]
        return 1 + max(self.key_of(row) for row in lasts)

    def key_of(self, row: int) -> int:
        """Return the key of a sample, by its row of the table."""
        split, sample = self.place_of(row)
        shard = self.index.splits[split].shard_name(self.index.splits[split].shard_of(sample))
        header = open_storage(self.index.path).read_range(shard, int(self.index.table[row]["start"]), tarfile.BLOCKSIZE)
        try:
            return int(tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name.partition(".")[0])
        except (tarfile.TarError, ValueError) as error:
            raise damage(self.index.path, shard) from error

    def place_of(self, row: int) -> tuple[str, int]:
        """Return the split of a row of the table, and its number in that."""
        name = next(name for name in reversed(SPLITS) if row >= self.index.splits[name].first)
        return name, row - self.index.splits[name].first

    def name_of(self, row: int) -> str:
        """Return the name of the file of a sample, by its row of the table."""
        try:
            return str(read_facts(self.index, *self.place_of(row))["file"])
        except (ValueError, LookupError, TypeError) as error:
            raise damage(self.index.path, "a shard") from error

    def excluded(self) -> Iterator[tuple[bytes, str, str]]:
        """Yield name, reason and detail of the files that are excluded there."""
        with fetch_file(self.index.path, EXCLUDED, self.index.content["excluded_sha256"], self.work).open() as lines:
            for line in lines:
                found = json.loads(line)
                yield encode_name(found["file"]), found["reason"], found["detail"]

    def shards(self, split: int) -> Iterator[KeptShard]:
        """Yield the shards of one side."""
        described = self.index.splits[SPLITS[split]]
        first = described.first
        for shard in described.shards:
            yield KeptShard(self.index, self.labels, split, shard, first)
            first += shard.samples

    def rows(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield the rows of the table, some at a time: (n,) of index.ROW."""
        for first in range(0, self.samples, ROWS_AT_ONCE):
            yield self.index.table[first : first + ROWS_AT_ONCE]

    def count_shards(self) -> list[int]:
        """Return the shards of each side."""
        return [len(self.index.splits[name].shard_samples) for name in SPLITS]

    def prints(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield the fingerprints of the samples of each shard: (samples,) of fingerprint.PRINT."""
        for split in range(len(SPLITS)):
            for shard in self.shards(split):
                yield shard.prints()

    def summary(self) -> dict[str, Any]:
        """Return what the index of the new dataset says of this one."""
        return {
            "index": self.index.hash,
            "settings": self.index.content["settings"],
            "samples": {name: split.samples for name, split in self.index.splits.items()},
            "shards": {name: len(split.shard_samples) for name, split in self.index.splits.items()},
            "classes": len(self.index.classes),
        }


def open_old(place: Place, work: Path) -> OldDataset:
    """Open a dataset that pictures are added to.

    Args:
        place: its folder or URL.
        work: the folder for copies.

    Raises:
        DataError: it is damaged, or cannot be added to.
    """
    raw = read_index(place)
    content = check_extendable(place, parse_index(place, raw))
    own = str(content.get("index_sha256"))
    if hashlib.sha256(raw.replace(own.encode(), b"0" * len(own))).hexdigest() != own:
        raise damage(place, INDEX)
    samples = sum(split["samples"] for split in content["splits"].values())
    table = map_table(fetch_file(place, TABLE, content["table_sha256"], work), samples)
    return OldDataset(Index.of_content(place, hashlib.sha256(raw).hexdigest(), content, table, CacheSettings()), work)


def check_extendable(place: Place, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an index says, if pictures can be added to its dataset.

    Raises:
        DataError: they cannot.
    """
    settings = content["settings"]
    if settings["encode"] == ORIGINAL:
        raise DataError(
            f"--add {place} is of tars that were indexed where they lie: index them together with the new ones, into "
            "another folder"
        )
    if settings.get("holdout_by") != "pixels":
        raise DataError(
            f"--add {place} is of an earlier version, which drew the hold-out by the names of the pictures, so new "
            "pictures could repeat some on its other side: build all of them again, into another folder"
        )
    return content
