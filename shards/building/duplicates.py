"""Find pictures that are stored twice: same bytes, so same hash in the table, and so the same side of the hold-out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shards.building.build_db import BuildDb
from shards.dataset.index import ROW

HASHES_PER_PASS = 1 << 20  # held in memory; more pictures take several passes over the results

Copies = npt.NDArray[np.int64]  # (n, 2): a sample that repeats another one, and that; ascending by the former


def find_copies(build_db: BuildDb) -> Copies:
    """Find the samples that have the pixels of an earlier one. Samples are numbered over `build_db.parts()`.

    Memory is bounded but for the result: each pass looks only at the hashes with one remainder, and equal hashes have
    equal remainders.

    Args:
        build_db: of which all tasks are finished.
    """
    passes = -(-max(1, build_db.pictures) // HASHES_PER_PASS)
    found = [np.empty((0, 2), np.int64)]
    for number in range(passes):
        samples, hashes = read_hashes(build_db, number, passes)
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        pairs = np.stack([samples, samples[first[group]]], 1)
        found.append(pairs[pairs[:, 0] != pairs[:, 1]])
    copies = np.concatenate(found)
    return copies[np.argsort(copies[:, 0])]


def read_hashes(build_db: BuildDb, number: int, passes: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Return the samples whose hash has the remainder `number` modulo `passes`, and these hashes: (n,) and (n,)."""
    samples, parts, first = [np.empty(0, np.int64)], [np.empty(0, np.uint64)], 0
    for _, _, part in build_db.parts():
        hashes = np.frombuffer(part.rows, dtype=ROW)["image_hash"]
        chosen = np.flatnonzero(hashes % np.uint64(passes) == number)
        samples.append(first + chosen)
        parts.append(hashes[chosen])
        first += part.samples
    return np.concatenate(samples), np.concatenate(parts)


def find_names(build_db: BuildDb, samples: npt.NDArray[np.int64]) -> dict[int, str]:
    """Return the names in the source of samples that are numbered over `build_db.parts()`."""
    names, first, wanted = dict[int, str](), 0, np.unique(samples)
    for _, _, part in build_db.parts():
        here = wanted[slice(*np.searchsorted(wanted, (first, first + part.samples)))]
        positions = np.frombuffer(part.positions, dtype="<i8")[here - first]
        names.update(zip(here.tolist(), map(build_db.name_at, positions.tolist()), strict=True))
        first += part.samples
    return names


def count_copies(build_db: BuildDb, copies: Copies) -> dict[str, int]:
    """Return the "duplicates" of index.json: samples of each side that repeat another one of it."""
    trained = sum(part.samples for split, _, part in build_db.parts() if split == 0)
    train = int(np.count_nonzero(copies[:, 0] < trained))
    return {"train": train, "holdout": len(copies) - train}
