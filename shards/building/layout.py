"""Which samples of which finished parts make up each final shard, and writing these shards.

The training part of a task becomes a shard by a rename; if samples of it are left out, the others are copied. Held-out
parts are small, so several of them are copied into one shard. Everything follows from the recorded parts alone: after
a kill the same shards are written again.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shards.atomic_files import write_chunks_atomically
from shards.building.build_db import BuildDb
from shards.building.holdout import SPLITS, TRAIN
from shards.building.kept_shard import KeptShard
from shards.building.old_dataset import OldDataset
from shards.building.part import PartResult
from shards.building.shard import part_path
from shards.building.target import Target
from shards.dataset.splits import shard_name
from shards.dataset.table import ROW

END_MARK = 2 * tarfile.BLOCKSIZE  # bytes of zeros, and then more up to a whole record


@dataclass(frozen=True)
class Folders:
    """Where a build writes."""

    out: Path
    """The finished dataset, or what of it is not uploaded yet."""
    work: Path
    """The folder inside it with the parts."""


class Slice(NamedTuple):
    """Samples of one part."""

    split: int
    number: int
    part: PartResult
    chosen: npt.NDArray[np.int64]  # rows of the part, ascending

    def regions(self) -> tuple[npt.NDArray[np.void], npt.NDArray[np.int64]]:
        """Return the chosen rows, (n,) of index.ROW, and the bytes of each one's region: (n,)."""
        rows = np.frombuffer(self.part.rows, dtype=ROW)
        starts = rows["start"].astype(np.int64)
        return rows[self.chosen], np.diff(starts, append=self.part.end)[self.chosen]


@dataclass(frozen=True)
class ShardPlan:
    """What one final shard is made of."""

    name: str
    split: int
    slices: list[Slice]

    @property
    def samples(self) -> int:
        """Samples in the shard."""
        return sum(len(taken.chosen) for taken in self.slices)

    @property
    def is_one_part(self) -> bool:
        """Whether it is one finished part as it is."""
        return len(self.slices) == 1 and self.samples == self.slices[0].part.samples

    def rows(self) -> npt.NDArray[np.void]:
        """Return the table rows of the samples, with their places in this shard: (samples,) of index.ROW."""
        placed, begin = [], 0
        for taken in self.slices:
            rows, lengths = taken.regions()
            starts = begin + np.cumsum(lengths) - lengths
            shift = starts - rows["start"].astype(np.int64)
            rows["offset"] = rows["offset"].astype(np.int64) + shift
            rows["start"] = starts
            placed.append(rows)
            begin += int(lengths.sum())
        return np.concatenate(placed)

    def positions(self) -> npt.NDArray[np.int64]:
        """Return the places of the samples in the listing: (samples,)."""
        return np.concatenate([np.frombuffer(taken.part.positions, dtype="<i8")[taken.chosen] for taken in self.slices])


def plan_shards(
    build_db: BuildDb, shard_samples: int, left_out: npt.NDArray[np.int64], old: OldDataset | None
) -> Iterator[ShardPlan | KeptShard]:
    """Yield the final shards, in the order of the table: on each side those of the old dataset, and then new ones.

    Args:
        build_db: of which all tasks are finished.
        shard_samples: at most so many held-out samples are in a shard.
        left_out: numbers of the samples that are left out, counted over `build_db.parts()`, ascending: (n,).
        old: that is added to; None: nothing.
    """
    if old is None:
        yield from plan_new_shards(build_db, shard_samples, left_out, [0] * len(SPLITS))
        return
    new = plan_new_shards(build_db, shard_samples, left_out, old.count_shards())
    waiting = next(new, None)
    for split in range(len(SPLITS)):
        yield from old.shards(split)
        while waiting is not None and waiting.split == split:
            yield waiting
            waiting = next(new, None)


def plan_new_shards(
    build_db: BuildDb, shard_samples: int, left_out: npt.NDArray[np.int64], number: list[int]
) -> Iterator[ShardPlan]:
    """Yield the shards of this build's own samples; `number` is that of the first one of each side."""
    first, waiting = 0, list[Slice]()

    def plan(split: int, slices: list[Slice]) -> ShardPlan:
        number[split] += 1
        return ShardPlan(shard_name(SPLITS[split], number[split] - 1), split, slices)

    for split, task, part in build_db.parts():
        here = left_out[slice(*np.searchsorted(left_out, (first, first + part.samples)))] - first
        chosen = np.setdiff1d(np.arange(part.samples), here)
        first += part.samples
        if split == TRAIN:
            if len(chosen):
                yield plan(split, [Slice(split, task, part, chosen)])
            continue
        while len(chosen):
            room = shard_samples - sum(len(taken.chosen) for taken in waiting)
            waiting.append(Slice(split, task, part, chosen[:room]))
            chosen = chosen[room:]
            if sum(len(taken.chosen) for taken in waiting) == shard_samples:
                yield plan(split, waiting)
                waiting = []
    if waiting:
        yield plan(waiting[0].split, waiting)


def write_shards(
    plans: Iterator[ShardPlan | KeptShard], folders: Folders, target: Target, on_tick: Callable[[int], None]
) -> dict[str, dict[str, Any]]:
    """Write the final shards, and return the "splits" of index.json.

    Args:
        plans: of the shards.
        folders: where they are written.
        target: where they go.
        on_tick: called with the number of shards that are written, before each; may raise.

    Raises:
        OSError: one cannot be written.
        DataError: one of the old dataset is damaged.
    """
    splits: dict[str, dict[str, Any]] = {
        name: {"samples": 0, "shards": {"samples": [], "bytes": [], "sha256": []}} for name in SPLITS
    }
    for done, plan in enumerate(plans):
        on_tick(done)
        if isinstance(plan, KeptShard):
            length, sha256 = put_kept(plan, folders, target)
        else:
            length, sha256 = write_shard_file(plan, folders, target)
        described = splits[SPLITS[plan.split]]
        for name, value in {"samples": plan.samples, "bytes": length, "sha256": sha256}.items():
            described["shards"][name].append(value)
        described["samples"] += plan.samples
    return splits


def put_kept(kept: KeptShard, folders: Folders, target: Target) -> tuple[int, str]:
    """Put a shard of the old dataset, unless an earlier attempt has, and return its bytes and SHA-256."""
    if not target.has(kept.name, kept.shard.bytes):
        made = folders.work / f"old-{kept.name}"
        kept.bring(made)
        target.put(made, kept.name)
    return kept.shard.bytes, kept.shard.sha256


def write_shard_file(plan: ShardPlan, folders: Folders, target: Target) -> tuple[int, str]:
    """Put a part, or a copy of several, and return the bytes and the SHA-256 of the shard."""
    if plan.is_one_part:
        ((split, number, part, _),) = plan.slices
        target.put(part_path(folders.work, split, number), plan.name)
        return part.length, part.sha256
    content = sum(int(taken.regions()[1].sum()) for taken in plan.slices)
    length = -(-(content + END_MARK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    chunks = copied_chunks(plan, folders.work, length - content)
    sha256 = write_chunks_atomically(folders.out / plan.name, chunks, folders.work)
    target.put(folders.out / plan.name, plan.name)
    return length, sha256


def copied_chunks(plan: ShardPlan, work: Path, padding: int) -> Iterator[bytes]:
    """Yield the regions of the samples and the end mark, as TarWriter would write them."""
    for taken in plan.slices:
        rows, lengths = taken.regions()
        with part_path(work, taken.split, taken.number).open("rb") as file:
            for start, length in zip(rows["start"], lengths, strict=True):
                yield os.pread(file.fileno(), int(length), int(start))
    yield bytes(padding)
