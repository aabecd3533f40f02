"""Pictures that are stored twice with the same pixels, as the hash of their bytes in the table tells."""

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

AT_ONCE = 1 << 20  # hashes in memory; of more pictures there are several passes


@dataclass
class Duplicates:
    """How many there are."""

    train: int = 0
    """Pictures to train on that repeat an earlier one of them."""
    holdout_in_train: int = 0
    """Held-out pictures that are trained on as well."""
    shared: int | None = None
    """The hash of one such."""


def count_duplicates(ledger: BuildDb, samples: int) -> Duplicates:
    """Count them; memory does not grow with their number, as each pass looks at some of the hashes only."""
    found, passes = Duplicates(), -(-samples // AT_ONCE)
    for number in range(passes):
        train, holdout = (some_hashes(ledger, split, number, passes) for split in range(len(SPLITS)))
        again = holdout[np.isin(holdout, train)]
        found.train += len(train) - len(np.unique(train))
        found.holdout_in_train += len(again)
        if len(again):
            found.shared = int(again[0])
    return found


def some_hashes(ledger: BuildDb, split: int, number: int, passes: int) -> npt.NDArray[np.uint64]:
    """Return the hashes of a split that leave this rest when they are divided by the number of passes."""
    parts = [np.empty(0, np.uint64)]
    for other, _, piece in ledger.pieces():
        if other == split:
            hashes = np.frombuffer(piece.rows, dtype=ROW)["image_hash"]
            parts.append(hashes[hashes % np.uint64(passes) == number])
    return np.concatenate(parts)


def files_of(index: Index, image_hash: int) -> Iterator[str]:
    """Yield for each split the name of the first picture with this hash."""
    for split in index.splits.values():
        rows = index.table[split.first : split.first + split.samples]
        sample = int(np.flatnonzero(rows["image_hash"] == image_hash)[0])
        shard = int(np.searchsorted(np.cumsum(split.shard_samples), sample, side="right"))
        with (index.path / split.shards[shard].name).open("rb") as file:
            file.seek(int(rows["start"][sample]))
            with tarfile.open(fileobj=file, mode="r:") as archive:
                text = next(archive.extractfile(member) for member in archive if member.name.endswith(".json"))
                yield json.load(text)["file"]  # type: ignore[arg-type]  # it is a file
