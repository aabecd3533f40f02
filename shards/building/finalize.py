"""Turn finished shards into a finished folder: final names, table, exclusions and, last of all, the index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.atomic_files import fsync, write_chunks_atomically
from shards.building.attributes import Plans, write_attributes
from shards.building.build_db import BuildDb
from shards.building.card import write_cards
from shards.building.card_pictures import read_training_pictures
from shards.building.duplicates import CopiesFound, count_copies, count_samples
from shards.building.kept_shard import KeptShard
from shards.building.layout import Folders, ShardPlan, plan_shards, write_shards
from shards.building.old_dataset import OldDataset
from shards.building.statistics import Statistics, count_described, counts_of, describe_statistics
from shards.building.summary import describe_exclusions
from shards.building.target import Target
from shards.dataset.files import CARDS, EXCLUDED, INDEX, LABELS, TABLE
from shards.dataset.index import SCHEMA, DataError
from shards.dataset.splits import shard_name
from shards.dataset.table import ROW
from shards.npy_header import npy_header

HASH_PLACEHOLDER = "0" * 64  # in place of the index's own SHA-256 while that is computed


def finalize_dataset(
    build_db: BuildDb,
    folders: Folders,
    target: Target,
    settings: dict[str, Any],
    copies: CopiesFound,
    on_tick: Callable[[int], None],
    old: OldDataset | None,
) -> dict[str, Any]:
    """Complete the dataset, and return the content of its index. If it is killed at any point, it can be repeated.

    Args:
        build_db: with a result for each task.
        folders: of the build.
        target: where finished files go.
        settings: of the build, for the index; "shard_samples" among them.
        copies: of the build.
        on_tick: called before each shard; may raise.
        old: that the build adds to; None: nothing.

    Raises:
        OSError: a file cannot be written.
    """
    out, work = folders.out, folders.work
    plans = partial(plan_shards, build_db, settings["shard_samples"], copies.left_out, old)
    statistics, duplicates = count_all(build_db, copies, old)
    classes = number_classes(build_db.labels, counts_of(statistics, "class"), old)
    splits = write_shards(plans(), folders, target, on_tick)
    attributes = write_attributes(build_db, plans, settings, out, work, old)
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "settings": used_plugins(settings, counts_of(statistics, "format")),
        **({"added_to": [*old.index.content.get("added_to", []), old.summary()]} if old else {}),
        "classes": classes.names,
        "class_counts": classes.counts,
        "labels": build_db.read_fact("matching"),
        **({"attributes": attributes} if attributes else {}),
        "splits": splits,
        "table_sha256": write_chunks_atomically(out / TABLE, table_chunks(plans(), splits, classes), work),
        "excluded_sha256": write_chunks_atomically(out / EXCLUDED, exclusion_chunks(build_db.excluded()), work),
        "excluded": {reason: found.count for reason, found in build_db.count_exclusions().reasons.items()},
        "statistics": describe_statistics(statistics, settings["channels"], duplicates),
    }
    target.complete(shard_sizes(splits))
    add_cards(content, build_db, plans, folders, target)
    put_last(content, folders, target)
    return content


def count_all(build_db: BuildDb, copies: CopiesFound, old: OldDataset | None) -> tuple[Statistics, dict[str, int]]:
    """Return the statistics of old and new samples, with the classes of new ones alone, and the "duplicates"."""
    statistics, _ = count_samples(build_db, copies.left_out)
    duplicates = count_copies(build_db, copies.kept)
    if old is None:
        return statistics, duplicates
    before = old.index.content["statistics"]["duplicates"]
    return (
        statistics + count_described(old.index.content),
        {name: count + before[name] for name, count in duplicates.items()},
    )


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset."""

    names: list[str]
    """Those of the old dataset first, so that these keep their numbers, and then new ones, each sorted by name."""
    counts: list[int]
    numbers: npt.NDArray[np.int64]
    """By the number of a class in the listing; -1: it has no usable picture."""


def number_classes(labels: list[str], counts: Mapping[str, int], old: OldDataset | None) -> Classes:
    """Number the classes.

    Args:
        labels: of the listing.
        counts: new samples by the number of a class in the listing.
        old: that the build adds to; None: nothing.
    """
    names = list(old.index.classes) if old else []
    found = Classes(names, list(old.index.content["class_counts"]) if old else [], np.full(len(labels), -1))
    numbers = {name: number for number, name in enumerate(names)}
    for label in sorted(map(int, counts)):
        name = labels[label]
        if name not in numbers:
            numbers[name] = len(names)
            names.append(name)
            found.counts.append(0)
        found.numbers[label] = numbers[name]
        found.counts[numbers[name]] += counts[str(label)]
    return found


def add_cards(content: dict[str, Any], build_db: BuildDb, plans: Plans, folders: Folders, target: Target) -> None:
    """Write the cards, whose pictures are read from the finished shards, and add their hashes to the index."""
    read = partial(read_training_pictures, build_db, plans, target, content["settings"])
    content["cards"] = write_cards(content, build_db.count_exclusions(), read, folders.out, folders.work)


def put_last(content: dict[str, Any], folders: Folders, target: Target) -> None:
    """Put everything but the shards, and when it is there, the index."""
    for name in (TABLE, EXCLUDED, LABELS, *CARDS):
        target.put(folders.out / name, name)
    target.complete({})
    write_index(content, folders.out, folders.work)
    target.put(folders.out / INDEX, INDEX)
    target.complete({})


def shard_sizes(splits: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Return the bytes of each shard by its name."""
    return {
        shard_name(name, number): size
        for name, split in splits.items()
        for number, size in enumerate(split["shards"]["bytes"])
    }


def write_index(content: dict[str, Any], out: Path, work: Path) -> None:
    """Write index.json, with its own hash: the last file of a dataset, which makes it one.

    Raises:
        OSError: it cannot be written.
    """
    content["index_sha256"] = HASH_PLACEHOLDER
    fsync(out)  # the index vouches for everything else, so that must be on the disk before it
    text = json.dumps(content, indent=1).encode("ascii") + b"\n"
    own_hash = hashlib.sha256(text).hexdigest()
    # Who verifies the index puts the placeholder back, and hashes again.
    write_chunks_atomically(out / INDEX, [text.replace(HASH_PLACEHOLDER.encode(), own_hash.encode())], work)
    fsync(out)


def used_plugins(settings: dict[str, Any], formats: Container[str]) -> dict[str, Any]:
    """Return the settings with the plugins of some formats only; without the key, if these are none."""
    plugins = {name: version for name, version in settings.get("plugins", {}).items() if name in formats}
    others = {name: value for name, value in settings.items() if name != "plugins"}
    return {"plugins": plugins, **others} if plugins else others


def check_pictures(
    build_db: BuildDb, folders: Folders, settings: dict[str, Any], left_out: npt.NDArray[np.int64]
) -> None:
    """Check that there are pictures to train on, or to add, with labels if --labels asks for them.

    Raises:
        DataError: there are none; the message says why, and the folder then holds the list of excluded files.
    """
    statistics, trained = count_samples(build_db, left_out)
    labelled = settings["labels"] == "none" or counts_of(statistics, "class") or build_db.vector_length()
    usable, exclusions = statistics["pictures"], build_db.count_exclusions()
    enough = usable if "add" in settings else trained
    if enough and labelled:
        return
    if enough:
        why = f"no usable picture has a label, of {usable:,}"
    elif "add" in settings:
        why = "there is no picture to add"
    elif usable:
        why = f"there is no picture to train on, as all {usable:,} are held out: give a lower --holdout"
    else:
        why = "there is no picture to train on" if exclusions.count else "the source has no files"
    if exclusions.count:
        write_chunks_atomically(folders.out / EXCLUDED, exclusion_chunks(build_db.excluded()), folders.work)
        why += f"; {exclusions.count:,} files are excluded, see {folders.out / EXCLUDED}"
    raise DataError("\n".join([why, *describe_exclusions(exclusions)]))


def table_chunks(
    plans: Iterator[ShardPlan | KeptShard], splits: dict[str, dict[str, Any]], classes: Classes
) -> Iterator[bytes]:
    """Yield the table as a .npy file, shard by shard; labels of new samples become the numbers of their classes."""
    yield npy_header(ROW, sum(split["samples"] for split in splits.values()))
    for plan in plans:
        rows = plan.rows()
        if isinstance(plan, ShardPlan):
            labelled = rows["label"] >= 0
            rows["label"][labelled] = classes.numbers[rows["label"][labelled]]
        yield rows.tobytes()


def exclusion_chunks(excluded: Iterable[tuple[str, str, str]]) -> Iterator[bytes]:
    """Yield excluded.jsonl: a line for each excluded file, of its name, reason and detail."""
    for name, reason, detail in excluded:
        yield json.dumps({"file": name, "reason": reason, "detail": detail}).encode("ascii") + b"\n"
