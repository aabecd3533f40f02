"""Turn finished shards into a finished folder: final names, table, exclusions and, last of all, the index."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shards.atomic_files import fsync, write_chunks_atomically
from shards.building.build_db import BuildDb
from shards.building.duplicates import Duplicates
from shards.building.shard import shard_path
from shards.building.statistics import Statistics, counts_of, describe_statistics
from shards.building.summary import describe_exclusions
from shards.dataset.index import EXCLUDED, INDEX, ROW, SCHEMA, TABLE, DataError, shard_name
from shards.sources.listing import SPLITS

HASH_PLACEHOLDER = "0" * 64  # in place of the index's own SHA-256 while that is computed


def finalize_dataset(
    build_db: BuildDb, out: Path, work: Path, settings: dict[str, Any], duplicates: Duplicates
) -> dict[str, Any]:
    """Complete the folder, and return the content of its index. If it is killed at any point, it can be repeated.

    Args:
        build_db: with a result for each task.
        out: the folder.
        work: the folder inside it with the shards.
        settings: of the build, for the index.
        duplicates: for the index.

    Raises:
        OSError: a file cannot be written.
    """
    statistics = Statistics()
    for _, _, result in build_db.results():
        statistics.update(result.statistics)
    counts = {int(label): count for label, count in counts_of(statistics, "class").items()}
    used = sorted(counts)  # numbers in the listing of the classes that have usable pictures
    splits = rename_shards(build_db, out, work)
    samples = sum(split["samples"] for split in splits.values())
    content = {
        "schema": SCHEMA,
        "settings": settings,
        "classes": [build_db.labels[label] for label in used],
        "class_counts": [counts[label] for label in used],
        "labels": build_db.read_fact("matching"),
        "splits": splits,
        "table_sha256": write_chunks_atomically(out / TABLE, table_chunks(build_db, samples, used), work),
        "excluded_sha256": write_chunks_atomically(out / EXCLUDED, exclusion_chunks(build_db), work),
        "excluded": {reason: found.count for reason, found in build_db.count_exclusions().reasons.items()},
        "statistics": describe_statistics(statistics) | {"duplicates": duplicates_to_json(duplicates)},
        "index_sha256": HASH_PLACEHOLDER,
    }
    fsync(out)  # the index vouches for everything else, so that must be on the disk before it
    text = json.dumps(content, indent=1).encode("ascii") + b"\n"
    own_hash = hashlib.sha256(text).hexdigest()
    # Who verifies the index puts the placeholder back, and hashes again.
    write_chunks_atomically(out / INDEX, [text.replace(HASH_PLACEHOLDER.encode(), own_hash.encode())], work)
    fsync(out)
    return content


def duplicates_to_json(duplicates: Duplicates) -> dict[str, int]:
    """Return the "duplicates" of index.json."""
    return {"train": duplicates.train, "holdout_in_train": duplicates.holdout_in_train}


def check_pictures(build_db: BuildDb, out: Path, work: Path, settings: dict[str, Any]) -> None:
    """Check that there are pictures to train on, with labels if --labels asks for them.

    Raises:
        DataError: there are none; the message says why, and `out` then holds the list of excluded files.
    """
    statistics, trained = Statistics(), 0
    for split, _, result in build_db.results():
        statistics.update(result.statistics)
        trained += result.samples if split == 0 else 0
    if trained and (settings["labels"] == "none" or counts_of(statistics, "class")):
        return
    usable, exclusions = statistics["pictures"], build_db.count_exclusions()
    if trained:
        why = f"no usable picture has a label, of {usable:,}"
    elif usable:
        why = f"there is no picture to train on, as all {usable:,} are held out: give a lower --holdout"
    else:
        why = "there is no picture to train on" if exclusions.count else "the source has no files"
    if exclusions.count:
        write_chunks_atomically(out / EXCLUDED, exclusion_chunks(build_db), work)
        why += f"; {exclusions.count:,} files are excluded, see {out / EXCLUDED}"
    raise DataError("\n".join([why, *describe_exclusions(exclusions)]))


def rename_shards(build_db: BuildDb, out: Path, work: Path) -> dict[str, dict[str, Any]]:
    """Give the shards their final names, numbered without gaps, and return the "splits" of index.json."""
    splits: dict[str, dict[str, Any]] = {
        name: {"samples": 0, "shards": {"samples": [], "bytes": [], "sha256": []}} for name in SPLITS
    }
    for split, number, result in build_db.results():
        if not result.samples:
            continue
        described = splits[SPLITS[split]]
        columns = described["shards"]
        name = shard_name(SPLITS[split], len(columns["samples"]))
        here = shard_path(work, split, number)
        if here.exists():  # else a finalize that was killed has renamed it already
            os.replace(here, out / name)
        columns["samples"].append(result.samples)
        columns["bytes"].append(result.length)
        columns["sha256"].append(result.sha256)
        described["samples"] += result.samples
    return splits


def table_chunks(build_db: BuildDb, samples: int, used: list[int]) -> Iterator[bytes]:
    """Yield the table as a .npy file, shard by shard; labels are renumbered to the classes in `used`."""
    header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (samples,)}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    yield buffer.getvalue()
    for _, _, result in build_db.results():
        rows = np.frombuffer(result.rows, dtype=ROW).copy()
        labelled = rows["label"] >= 0
        rows["label"][labelled] = np.searchsorted(used, rows["label"][labelled])
        yield rows.tobytes()


def exclusion_chunks(build_db: BuildDb) -> Iterator[bytes]:
    """Yield excluded.jsonl: a line for each excluded file."""
    for name, reason, detail in build_db.excluded():
        yield json.dumps({"file": name, "reason": reason, "detail": detail}).encode("ascii") + b"\n"
