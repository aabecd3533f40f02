"""Labels beside the one in the table: further classes, numbers and vectors, in labels.npy, a row for each sample."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shards.atomic_files import write_chunks_atomically
from shards.building.build_db import BuildDb
from shards.building.kept_shard import KeptShard
from shards.building.layout import ShardPlan
from shards.building.old_dataset import OldDataset
from shards.dataset.files import LABELS
from shards.npy_header import npy_header

Plans = Callable[[], Iterator[ShardPlan | KeptShard]]
Facts = dict[str, dict[str, Any]]  # "labels" and "numbers" by column, and "vector": {"label": [...]}


def write_attributes(
    build_db: BuildDb, plans: Plans, settings: dict[str, Any], out: Path, work: Path, old: OldDataset | None
) -> dict[str, Any] | None:
    """Write labels.npy, and return the "attributes" of index.json; None: there are none.

    Args:
        build_db: of the build.
        plans: returns the final shards.
        settings: of the build.
        out: the folder.
        work: the folder inside it for an unfinished file.
        old: that the build adds to; None: nothing.

    Raises:
        OSError: it cannot be written.
    """
    named = settings["labels"][2:] if isinstance(settings["labels"], list) else []
    numbers, length = settings.get("number_columns", []), build_db.vector_length()
    if not (named or numbers or length):
        return None
    classes = count_classes(build_db, plans, named, old)
    numbered = {column: {name: number for number, name in enumerate(counts)} for column, counts in classes.items()}
    samples = sum(plan.samples for plan in plans())
    fields: list[tuple[Any, ...]] = [(column, "<i4") for column in named] + [(column, "<f8") for column in numbers]
    if length:
        fields.append(("label", "<f8", (length,)))
    rows = attribute_chunks(build_db, plans(), np.dtype(fields), numbered, samples)
    sha256 = write_chunks_atomically(out / LABELS, rows, work)
    columns = [
        {
            "name": column,
            "kind": "class",
            "classes": list(counts),
            "counts": list(counts.values()),
        }
        for column, counts in classes.items()
    ]
    columns += [{"name": column, "kind": "number"} for column in numbers]
    return {
        "sha256": sha256,
        "columns": columns + [{"name": "label", "kind": "vector", "length": length}] * (length > 0),
    }


def count_classes(
    build_db: BuildDb, plans: Plans, columns: list[str], old: OldDataset | None
) -> dict[str, dict[str, int]]:
    """Return the classes of each column and their samples, in the order of their numbers: old ones first."""
    known = {column: dict[str, int]() for column in columns} | (old.class_columns() if old else {})
    found = {column: Counter(known[column]) for column in columns}
    for facts in read_attributes(build_db, plans()):
        for column, value in facts.get("labels", {}).items():
            if value is not None:
                found[column][value] += 1
    ordered = {column: [*known[column], *sorted(found[column].keys() - known[column])] for column in columns}
    return {column: {name: found[column][name] for name in names} for column, names in ordered.items()}


def read_attributes(build_db: BuildDb, plans: Iterator[ShardPlan | KeptShard]) -> Iterator[Facts]:
    """Yield what the table of labels says of each new sample, in the order of the table of samples."""
    for plan in plans:
        if isinstance(plan, ShardPlan):
            yield from build_db.extras(plan.positions().tolist())


def attribute_chunks(
    build_db: BuildDb,
    plans: Iterator[ShardPlan | KeptShard],
    row: np.dtype[np.void],
    classes: dict[str, dict[str, int]],
    count: int,
) -> Iterator[bytes]:
    """Yield labels.npy: a header, and a row for each sample; -1 and NaN where a value is missing.

    Args:
        build_db: of the build.
        plans: of the shards.
        row: the type of a row.
        classes: by column, the number of each class.
        count: of the samples.
    """
    yield npy_header(row, count)
    for plan in plans:
        if isinstance(plan, KeptShard):
            yield plan.label_rows(row).tobytes()
            continue
        for facts in build_db.extras(plan.positions().tolist()):
            yield np.array([attribute_values(facts, row, classes)], dtype=row).tobytes()


def attribute_values(facts: Facts, row: np.dtype[np.void], classes: dict[str, dict[str, int]]) -> tuple[Any, ...]:
    """Return the row of a sample."""
    values: list[Any] = []
    for name in row.names or ():
        if name in classes:
            label = facts.get("labels", {}).get(name)
            values.append(-1 if label is None else classes[name][label])
        elif row[name].shape:
            values.append(facts.get("vector") or [math.nan] * row[name].shape[0])
        else:
            number = facts.get("numbers", {}).get(name)
            values.append(math.nan if number is None else number)
    return tuple(values)
