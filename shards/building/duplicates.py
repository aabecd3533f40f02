"""Count pictures that are stored twice: same bytes, so same hash in the table."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.building.build_db import BuildDb
from shards.dataset.index import ROW, Index
from shards.sources.listing import SPLITS

HASHES_PER_PASS = 1 << 20  # held in memory; more pictures take several passes over the results


@dataclass
class Duplicates:
    """Counts of repeated pictures."""

    train: int = 0
    """Training pictures that repeat another training picture."""
    holdout_in_train: int = 0
    """Held-out pictures that are also in the training set: what is measured on them is too good."""
    shared_hash: int | None = None
    """The hash of one picture that is in both splits."""


def count_duplicates(build_db: BuildDb, samples: int) -> Duplicates:
    """Count repeated pictures.

    Memory is bounded: each pass looks only at the hashes with one remainder, and equal hashes have equal remainders.

    Args:
        build_db: of which all tasks are finished.
        samples: about how many there are; it decides the number of passes.
    """
    found, passes = Duplicates(), -(-samples // HASHES_PER_PASS)
    for number in range(passes):
        train, holdout = (read_hashes(build_db, split, number, passes) for split in range(len(SPLITS)))
        again = holdout[np.isin(holdout, train)]
        found.train += len(train) - len(np.unique(train))
        found.holdout_in_train += len(again)
        if len(again):
            found.shared_hash = int(again[0])
    return found


def read_hashes(build_db: BuildDb, split: int, number: int, passes: int) -> npt.NDArray[np.uint64]:
    """Return the hashes of a split whose remainder modulo `passes` is `number`: (n,)."""
    parts = [np.empty(0, np.uint64)]
    for other, _, result in build_db.results():
        if other == split:
            hashes = np.frombuffer(result.rows, dtype=ROW)["image_hash"]
            parts.append(hashes[hashes % np.uint64(passes) == number])
    return np.concatenate(parts)


def find_files(index: Index, image_hash: int) -> Iterator[str]:
    """Yield, for each split, the source file of the first picture with this hash."""
    for split in index.splits.values():
        rows = index.table[split.first : split.first + split.samples]
        sample = int(np.flatnonzero(rows["image_hash"] == image_hash)[0])
        shard = int(np.searchsorted(np.cumsum(split.shard_samples), sample, side="right"))
        with (index.folder / split.shards[shard].name).open("rb") as file:
            file.seek(int(rows["start"][sample]))
            with tarfile.open(fileobj=file, mode="r:") as archive:
                text = next(archive.extractfile(member) for member in archive if member.name.endswith(".json"))
                yield json.load(text)["file"]  # type: ignore[arg-type]  # it is a file
