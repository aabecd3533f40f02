"""From the results of all tars to a dataset: which samples stay, their labels, table, card, and last of all index."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.atomic_files import write_chunks_atomically
from shards.building.card import write_cards
from shards.building.card_pictures import Drawn
from shards.building.duplicates import Copies, find_equal
from shards.building.finalize import exclusion_chunks, used_plugins, write_index
from shards.building.holdout import SPLITS, TRAIN
from shards.building.layout import Folders
from shards.building.statistics import Statistics, counts_of, describe_statistics
from shards.dataset.cache_settings import CacheSettings
from shards.dataset.facts import read_facts
from shards.dataset.files import EXCLUDED, TABLE
from shards.dataset.index import SCHEMA, DataError, Index
from shards.dataset.table import ROW, map_table
from shards.indexing.tar_db import TarDb
from shards.indexing.tar_index import FOUND, TarResult
from shards.npy_header import npy_header
from shards.storage.place import Place, Url


@dataclass
class Kept:
    """What is known of all samples that stay."""

    left_out: npt.NDArray[np.int64]
    """Numbers of the samples that do not, over all tars, ascending: (n,)."""
    counts: dict[str, int] = field(default_factory=dict)
    """Samples of each class, in the order of the classes."""
    repeated: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    """Of each side, samples with the pixels of an earlier one of it."""
    examples: dict[str, str] = field(default_factory=dict)
    """Of each side, two such samples in words."""
    statistics: Statistics = field(default_factory=Statistics)


def decide(db: TarDb, deduplicate: bool) -> Kept:
    """Find repeated samples, leave them out if that is wanted, and count those that stay."""
    samples = sum(map(len, db.found()))
    copies = find_equal(lambda: (found["pixels"] for found in db.found()), samples)
    kept = Kept(copies[:, 0] if deduplicate else np.empty(0, np.int64))
    if deduplicate:
        names = db.names(copies.ravel())
        db.leave_out((names[again], f"has the pixels of {names[first]!r}") for again, first in copies.tolist())
    else:
        count_copies(db, copies, kept)
    counts = Counter[str]()
    for _, result, stay in staying(db, kept.left_out):
        for row in np.flatnonzero(stay).tolist():
            kept.statistics.update(result.facts[row])
        counts.update(label for label, here in zip(result.labels, stay, strict=True) if here and label is not None)
    kept.counts = {label: counts[label] for label in sort_labels(counts)}
    return kept


def count_copies(db: TarDb, copies: Copies, kept: Kept) -> None:
    """Count the samples of each side that repeat another one."""
    sides = np.concatenate([np.empty(0, "u1"), *(found["side"] for found in db.found())])[copies[:, 0]]
    for side, name in enumerate(SPLITS):
        pairs = copies[sides == side]
        kept.repeated[name] = len(pairs)
        if len(pairs):
            names = db.names(pairs[0])
            again, first = (names[number] for number in pairs[0].tolist())
            kept.examples[name] = f"such as {again!r} those of {first!r}"


def staying(db: TarDb, left_out: npt.NDArray[np.int64]) -> Iterator[tuple[str, TarResult, npt.NDArray[np.bool_]]]:
    """Yield name and result of each tar, and which of its samples stay: (n,)."""
    first = 0
    for name, result in db.results():
        stay = np.ones(len(result.names), bool)
        here = left_out[slice(*np.searchsorted(left_out, (first, first + len(stay))))]
        stay[here - first] = False
        first += len(stay)
        yield name, result, stay


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return labels in their order: numbers by value, as `cls` has them, and else texts."""
    if all(label.isascii() and label.isdigit() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def finish(db: TarDb, root: Place, folders: Folders, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Write the dataset, and return the content of its index, and of each side in words two equal samples, if any are.

    Raises:
        DataError: there is nothing to train on.
        OSError: a file cannot be written.
        StorageError: the pictures of the card cannot be read.
    """
    out, work = folders.out, folders.work
    kept = decide(db, settings["deduplicate"] == "exact")
    exclusions = db.count_exclusions()
    splits = {name: describe_split(db, side, kept.left_out) for side, name in enumerate(SPLITS)}
    excluded_sha256 = write_chunks_atomically(out / EXCLUDED, exclusion_chunks(db.excluded()), work)
    check_samples(splits, settings, kept, exclusions.count)
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "settings": used_plugins(settings, counts_of(kept.statistics, "format")),
        "classes": list(kept.counts),
        "class_counts": list(kept.counts.values()),
        "labels": None,
        "shards_at": shards_from(root, out),
        "splits": splits,
        "table_sha256": write_chunks_atomically(out / TABLE, table_chunks(db, kept), work),
        "excluded_sha256": excluded_sha256,
        "excluded": {reason: found.count for reason, found in exclusions.reasons.items()},
        "statistics": describe_statistics(kept.statistics, settings["channels"], kept.repeated),
    }
    table = map_table(out / TABLE, sum(split["samples"] for split in splits.values()))
    # Of single pictures, copies would hardly be used again.
    index = Index.of_content(out, "", content, table, CacheSettings(gb=0.0))
    content["cards"] = write_cards(content, exclusions, partial(read_pictures, index), out, work)
    write_index(content, out, work)
    return content, kept.examples


def check_samples(splits: dict[str, Any], settings: dict[str, Any], kept: Kept, excluded: int) -> None:
    """Check that there are pictures to train on, with labels if they are wanted.

    Raises:
        DataError: there are none.
    """
    told = f"; {excluded:,} are excluded, see {EXCLUDED} in --out" if excluded else ""
    if not splits[SPLITS[TRAIN]]["samples"]:
        raise DataError(f"the tars have no picture to train on{told}")
    if settings["labels"] != "none" and not kept.counts:
        raise DataError(f"no picture has a label of --labels {settings['labels']}: look for it with: tar -tf TAR")


def shards_from(root: Place, out: Path) -> str:
    """Return how the index says where the tars are: seen from the folder, if they are in it, so that both can move."""
    if isinstance(root, Url):
        return str(root)
    inside = Path(os.path.abspath(out))
    return str(root.relative_to(inside)) if root.is_relative_to(inside) else str(root)


def describe_split(db: TarDb, side: int, left_out: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return what index.json says of one side of the hold-out."""
    columns: dict[str, list[Any]] = {"names": [], "samples": [], "bytes": [], "sha256": []}
    for name, result, stay in staying(db, left_out):
        samples = int(np.count_nonzero(stay & (np.frombuffer(result.found, FOUND)["side"] == side)))
        if samples:
            for column, value in zip(columns.values(), (name, samples, result.length, result.sha256), strict=True):
                column.append(value)
    return {"samples": sum(columns["samples"]), "shards": columns}


def table_chunks(db: TarDb, kept: Kept) -> Iterator[bytes]:
    """Yield the table as a .npy file, tar by tar."""
    numbers = {label: number for number, label in enumerate(kept.counts)}
    yield npy_header(ROW, sum(map(len, db.found())) - len(kept.left_out))
    for side in range(len(SPLITS)):
        for _, result, stay in staying(db, kept.left_out):
            found = np.frombuffer(result.found, FOUND)
            rows = found["row"].copy()
            rows["label"] = [-1 if label is None else numbers.get(label, -1) for label in result.labels]
            yield rows[stay & (found["side"] == side)].tobytes()


def read_pictures(index: Index, chosen: npt.NDArray[np.int64]) -> Iterator[Drawn]:
    """Yield training pictures and their names."""
    from shards.dataset.stream import Reader  # brings webdataset and with it torch, which take seconds to import

    read = Reader(index, SPLITS[TRAIN], lambda *_: None)
    for number in chosen.tolist():
        yield str(read_facts(index, SPLITS[TRAIN], number)["file"]), read(np.array([number])).images[0].copy()
