"""Find pictures that are stored twice, and decide what `--deduplicate` leaves out.

Exact copies have the same bytes, so the same hash in the table, and so the same side of the hold-out. Nearly equal ones
may have two sides, but only one of them is left. Samples are numbered over `build_db.parts()`, from 0. Those of the
dataset that the build adds to come before them: their numbers are negative, and they stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.building.build_db import BuildDb
from shards.building.holdout import TRAIN
from shards.building.near import find_near
from shards.building.old_dataset import OldDataset
from shards.building.part import Deduplicate
from shards.building.statistics import Statistics
from shards.dataset.table import ROW
from shards.images.fingerprint import PRINT

HASHES_PER_PASS = 1 << 20  # held in memory; more pictures take several passes over the results

Hashes = npt.NDArray[np.uint64]
Copies = npt.NDArray[np.int64]  # (n, 2): a new sample that repeats another one, and that; ascending by the former


def find_copies(build_db: BuildDb, old: OldDataset | None) -> Copies:
    """Find the samples with the pixels of an earlier one, and the first one with these pixels.

    Args:
        build_db: of which all tasks are finished.
        old: that the build adds to; None: nothing.
    """

    def hashes() -> Iterator[Hashes]:
        if old is not None:
            yield from (rows["image_hash"] for rows in old.rows())
        yield from (np.frombuffer(part.rows, dtype=ROW)["image_hash"] for _, _, part in build_db.parts())

    before = old.samples if old else 0
    copies = find_equal(hashes, before + build_db.pictures) - before
    return copies[copies[:, 0] >= 0]


def find_equal(hashes: Callable[[], Iterator[Hashes]], samples: int) -> Copies:
    """Find the samples that have the hash of an earlier one.

    Args:
        hashes: yields those of the samples, part by part; it is called once for each pass.
        samples: about how many there are; it decides the number of passes.
    """
    passes = -(-max(1, samples) // HASHES_PER_PASS)
    found = [np.empty((0, 2), np.int64)]
    for number in range(passes):
        numbers, chosen = choose_hashes(hashes(), number, passes)
        _, first, group = np.unique(chosen, return_index=True, return_inverse=True)
        pairs = np.stack([numbers, numbers[first[group]]], 1)
        found.append(pairs[pairs[:, 0] != pairs[:, 1]])
    copies = np.concatenate(found)
    return copies[np.argsort(copies[:, 0])]


def choose_hashes(parts: Iterator[Hashes], number: int, passes: int) -> tuple[npt.NDArray[np.int64], Hashes]:
    """Return the samples whose hash has the remainder `number` modulo `passes`, and these hashes: (n,) and (n,)."""
    samples, kept, first = [np.empty(0, np.int64)], [np.empty(0, np.uint64)], 0
    for hashes in parts:
        chosen = np.flatnonzero(hashes % np.uint64(passes) == number)
        samples.append(first + chosen)
        kept.append(hashes[chosen])
        first += len(hashes)
    return np.concatenate(samples), np.concatenate(kept)


def find_names(build_db: BuildDb, samples: npt.NDArray[np.int64], old: OldDataset | None) -> dict[int, str]:
    """Return the names in the source of samples."""
    names, first, wanted = dict[int, str](), 0, np.unique(samples)
    if old is not None:
        names = {number: old.name_of(number + old.samples) for number in wanted[wanted < 0].tolist()}
    for _, _, part in build_db.parts():
        here = wanted[slice(*np.searchsorted(wanted, (first, first + part.samples)))]
        positions = np.frombuffer(part.positions, dtype="<i8")[here - first]
        names.update(zip(here.tolist(), map(build_db.name_at, positions.tolist()), strict=True))
        first += part.samples
    return names


def find_near_copies(build_db: BuildDb, exact: Copies, work: Path, old: OldDataset | None) -> Copies:
    """Find the samples that are nearly equal to one of the old dataset, or with an earlier name, on either side.

    Args:
        build_db: of which all tasks are finished, with fingerprints.
        exact: the samples that are left out already.
        work: a folder for the fingerprints, which are not held in memory.
        old: that the build adds to; None: nothing.
    """
    before = old.samples if old else 0
    parts = [(split, task, np.frombuffer(part.positions, dtype="<i8")) for split, task, part in build_db.parts()]
    positions = np.concatenate([np.empty(0, np.int64), *(positions for *_, positions in parts)])
    order = np.argsort(positions)
    order = order[~np.isin(order, exact[:, 0])]
    place = np.full(len(positions), -1)
    place[order] = np.arange(len(order))
    first, path, total = 0, work / "prints", before + len(order)
    prints: npt.NDArray[np.void] = np.memmap(path, PRINT, "w+", shape=total or 1)[:total]
    for found in old.prints() if old else ():
        prints[first : first + len(found)] = found
        first += len(found)
    first, new = 0, prints[before:]
    for split, task, here in parts:
        target = place[first : first + len(here)]
        new[target[target >= 0]] = build_db.prints(split, task)[target >= 0]
        first += len(here)
    leaders = find_near(prints, staying=before)
    path.unlink()
    again = np.flatnonzero(leaders != np.arange(total))
    numbers = np.concatenate([np.arange(-before, 0), order])
    copies = np.stack([numbers[again], numbers[leaders[again]]], 1)
    return copies[np.argsort(copies[:, 0])]


@dataclass(frozen=True)
class CopiesFound:
    """The repeated samples of a build."""

    kept: Copies
    """Those with equal pixels that stay."""
    left_out: npt.NDArray[np.int64]
    """Samples that are left out, ascending: (n,)."""


def deduplicate_samples(build_db: BuildDb, deduplicate: Deduplicate, work: Path, old: OldDataset | None) -> CopiesFound:
    """Find the repeated samples, decide which are left out, and record why."""
    exact, none = find_copies(build_db, old), np.empty((0, 2), np.int64)
    if deduplicate == "none":
        return CopiesFound(exact, none[:, 0])
    near = find_near_copies(build_db, exact, work, old) if deduplicate == "near" else none
    names = find_names(build_db, np.concatenate([exact, near]).ravel(), old)
    reasons = ((exact, "duplicate", "has the pixels of"), (near, "near_duplicate", "is nearly equal to"))
    build_db.record_left_out(
        (names[again], reason, f"{words} {names[first]!r}")
        for copies, reason, words in reasons
        for again, first in copies.tolist()
    )
    return CopiesFound(none, np.sort(np.concatenate([exact[:, 0], near[:, 0]])))


def count_samples(build_db: BuildDb, left_out: npt.NDArray[np.int64]) -> tuple[Statistics, int]:
    """Return the statistics of all new samples that are not left out, and how many of them are to train on."""
    statistics, trained, first = Statistics(), 0, 0
    for split, task, part in build_db.parts():
        here = left_out[slice(*np.searchsorted(left_out, (first, first + part.samples)))] - first
        first += part.samples
        statistics.update(part.statistics)
        trained += part.samples - len(here) if split == TRAIN else 0
        facts = build_db.facts(split, task) if len(here) else []
        for row in here.tolist():
            statistics.subtract(facts[row])
    return +statistics, trained  # without what counts nothing any more


def count_copies(build_db: BuildDb, copies: Copies) -> dict[str, int]:
    """Return the "duplicates" of index.json: new samples of each side that repeat another one of it."""
    trained = sum(part.samples for split, _, part in build_db.parts() if split == TRAIN)
    train = int(np.count_nonzero(copies[:, 0] < trained))
    return {"train": train, "holdout": len(copies) - train}
