"""From finished shards to a finished folder: names, table, exclusions and, last of all, the index."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shards.atomic_files import flush, write_durably
from shards.building.build_db import BuildDb
from shards.building.duplicates import Duplicates
from shards.building.shard import shard_file
from shards.building.statistics import Tally, group, statistics
from shards.building.summary import tell_exclusions
from shards.dataset.index import EXCLUDED, INDEX, ROW, SCHEMA, TABLE, DataError, shard_name
from shards.sources.listing import SPLITS

OWN_HASH = "0" * 64  # stands for the index's own SHA-256 while that is computed


def finish(ledger: BuildDb, out: Path, work: Path, settings: dict[str, Any], duplicates: Duplicates) -> dict[str, Any]:
    """Complete the folder and return the content of its index. It can be killed at any point, and done again.

    Args:
        ledger: in which all jobs are recorded.
        out: the folder.
        work: where the shards are.
        settings: for the index.
        duplicates: for the index as well.

    Raises:
        OSError: a file cannot be written.
    """
    tally = Tally()
    for _, _, piece in ledger.pieces():
        tally.update(piece.tally)
    counts = {int(label): count for label, count in group(tally, "class").items()}
    used = sorted(counts)  # classes of the listing, from 0, that have pictures
    splits = name_shards(ledger, out, work)
    samples = sum(split["samples"] for split in splits.values())
    content = {
        "schema": SCHEMA,
        "settings": settings,
        "classes": [ledger.labels[label] for label in used],
        "class_counts": [counts[label] for label in used],
        "labels": ledger.fact("matching"),
        "splits": splits,
        "table_sha256": write_durably(out / TABLE, table(ledger, samples, used), work),
        "excluded_sha256": write_durably(out / EXCLUDED, exclusion_lines(ledger), work),
        "excluded": {reason: found.count for reason, found in ledger.exclusions().reasons.items()},
        "statistics": statistics(tally) | {"duplicates": numbers_of(duplicates)},
        "index_sha256": OWN_HASH,
    }
    flush(out)
    text = json.dumps(content, indent=1).encode("ascii") + b"\n"
    own_hash = hashlib.sha256(text).hexdigest()
    write_durably(out / INDEX, [text.replace(OWN_HASH.encode(), own_hash.encode())], work)
    flush(out)
    return content


def numbers_of(duplicates: Duplicates) -> dict[str, int]:
    """Return what the index tells of pictures that are there twice."""
    return {"train": duplicates.train, "holdout_in_train": duplicates.holdout_in_train}


def check_pictures(ledger: BuildDb, out: Path, work: Path, settings: dict[str, Any]) -> None:
    """Check that there is something to train on, with labels where they were asked for; else say why there is not.

    Raises:
        DataError: there is not; `out` has the list of what was excluded.
    """
    tally, trained = Tally(), 0
    for split, _, piece in ledger.pieces():
        tally.update(piece.tally)
        trained += piece.samples if split == 0 else 0
    if trained and (settings["labels"] == "none" or group(tally, "class")):
        return
    usable, exclusions = tally["pictures"], ledger.exclusions()
    if trained:
        why = f"no usable picture has a label, of {usable:,}"
    elif usable:
        why = f"there is no picture to train on, as all {usable:,} are held out: give a lower --holdout"
    else:
        why = "there is no picture to train on" if exclusions.count else "the source has no files"
    if exclusions.count:
        write_durably(out / EXCLUDED, exclusion_lines(ledger), work)
        why += f"; {exclusions.count:,} files are excluded, see {out / EXCLUDED}"
    raise DataError("\n".join([why, *tell_exclusions(exclusions)]))


def name_shards(ledger: BuildDb, out: Path, work: Path) -> dict[str, dict[str, Any]]:
    """Give the shards their final names, without gaps, and return what the index tells of them."""
    splits: dict[str, dict[str, Any]] = {
        name: {"samples": 0, "shards": {"samples": [], "bytes": [], "sha256": []}} for name in SPLITS
    }
    for split, number, piece in ledger.pieces():
        if not piece.samples:
            continue
        described = splits[SPLITS[split]]
        columns = described["shards"]
        name = shard_name(SPLITS[split], len(columns["samples"]))
        here = shard_file(work, split, number)
        if here.exists():  # else a finish that was killed has moved it
            os.replace(here, out / name)
        columns["samples"].append(piece.samples)
        columns["bytes"].append(piece.length)
        columns["sha256"].append(piece.sha256)
        described["samples"] += piece.samples
    return splits


def table(ledger: BuildDb, samples: int, used: list[int]) -> Iterator[bytes]:
    """Yield the table as a .npy file, shard by shard; labels are numbered by the classes that have pictures."""
    header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (samples,)}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    yield buffer.getvalue()
    for _, _, piece in ledger.pieces():
        rows = np.frombuffer(piece.rows, dtype=ROW).copy()
        labelled = rows["label"] >= 0
        rows["label"][labelled] = np.searchsorted(used, rows["label"][labelled])
        yield rows.tobytes()


def exclusion_lines(ledger: BuildDb) -> Iterator[bytes]:
    """Yield a line of JSON for each excluded file."""
    for name, reason, detail in ledger.excluded():
        yield json.dumps({"file": name, "reason": reason, "detail": detail}).encode("ascii") + b"\n"
