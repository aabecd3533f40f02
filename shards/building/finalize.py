"""Turn finished shards into a finished folder: final names, table, exclusions and, last of all, the index."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.atomic_files import fsync, write_chunks_atomically
from shards.building.attributes import write_attributes
from shards.building.build_db import BuildDb
from shards.building.card import write_cards
from shards.building.card_pictures import read_training_pictures
from shards.building.duplicates import CopiesFound, count_copies, count_samples
from shards.building.layout import Folders, ShardPlan, plan_shards, write_shards
from shards.building.statistics import counts_of, describe_statistics
from shards.building.summary import describe_exclusions
from shards.building.target import Target
from shards.dataset.files import CARDS, EXCLUDED, INDEX, LABELS, TABLE
from shards.dataset.index import SCHEMA, DataError
from shards.dataset.splits import shard_name
from shards.dataset.table import ROW

HASH_PLACEHOLDER = "0" * 64  # in place of the index's own SHA-256 while that is computed


def finalize_dataset(
    build_db: BuildDb,
    folders: Folders,
    target: Target,
    settings: dict[str, Any],
    copies: CopiesFound,
    on_tick: Callable[[int], None],
) -> dict[str, Any]:
    """Complete the dataset, and return the content of its index. If it is killed at any point, it can be repeated.

    Args:
        build_db: with a result for each task.
        folders: of the build.
        target: where finished files go.
        settings: of the build, for the index; "shard_samples" among them.
        copies: of the build.
        on_tick: called before each shard; may raise.

    Raises:
        OSError: a file cannot be written.
    """
    out, work = folders.out, folders.work
    plans = partial(plan_shards, build_db, settings["shard_samples"], copies.left_out)
    statistics, _ = count_samples(build_db, copies.left_out)
    counts = {int(label): count for label, count in counts_of(statistics, "class").items()}
    used = sorted(counts)  # numbers in the listing of the classes that have usable pictures
    splits = write_shards(plans(), folders, target, on_tick)
    attributes = write_attributes(build_db, plans, settings, out, work)
    samples = sum(split["samples"] for split in splits.values())
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "settings": used_plugins(settings, counts_of(statistics, "format")),
        "classes": [build_db.labels[label] for label in used],
        "class_counts": [counts[label] for label in used],
        "labels": build_db.read_fact("matching"),
        **({"attributes": attributes} if attributes else {}),
        "splits": splits,
        "table_sha256": write_chunks_atomically(out / TABLE, table_chunks(plans(), samples, used), work),
        "excluded_sha256": write_chunks_atomically(out / EXCLUDED, exclusion_chunks(build_db.excluded()), work),
        "excluded": {reason: found.count for reason, found in build_db.count_exclusions().reasons.items()},
        "statistics": describe_statistics(statistics, settings["channels"], count_copies(build_db, copies.kept)),
    }
    target.complete(shard_sizes(splits))
    read = partial(read_training_pictures, build_db, plans, target, content["settings"])
    content["cards"] = write_cards(content, build_db.count_exclusions(), read, out, work)
    put_last(content, folders, target)
    return content


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
    """Check that there are pictures to train on, with labels if --labels asks for them.

    Raises:
        DataError: there are none; the message says why, and the folder then holds the list of excluded files.
    """
    statistics, trained = count_samples(build_db, left_out)
    labelled = settings["labels"] == "none" or counts_of(statistics, "class") or build_db.vector_length()
    if trained and labelled:
        return
    usable, exclusions = statistics["pictures"], build_db.count_exclusions()
    if trained:
        why = f"no usable picture has a label, of {usable:,}"
    elif usable:
        why = f"there is no picture to train on, as all {usable:,} are held out: give a lower --holdout"
    else:
        why = "there is no picture to train on" if exclusions.count else "the source has no files"
    if exclusions.count:
        write_chunks_atomically(folders.out / EXCLUDED, exclusion_chunks(build_db.excluded()), folders.work)
        why += f"; {exclusions.count:,} files are excluded, see {folders.out / EXCLUDED}"
    raise DataError("\n".join([why, *describe_exclusions(exclusions)]))


def table_chunks(plans: Iterator[ShardPlan], samples: int, used: list[int]) -> Iterator[bytes]:
    """Yield the table as a .npy file, shard by shard; labels are renumbered to the classes in `used`."""
    yield table_header(samples)
    for plan in plans:
        rows = plan.rows()
        labelled = rows["label"] >= 0
        rows["label"][labelled] = np.searchsorted(used, rows["label"][labelled])
        yield rows.tobytes()


def table_header(samples: int) -> bytes:
    """Return the beginning of a .npy file of so many rows."""
    buffer = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (samples,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def exclusion_chunks(excluded: Iterable[tuple[str, str, str]]) -> Iterator[bytes]:
    """Yield excluded.jsonl: a line for each excluded file, of its name, reason and detail."""
    for name, reason, detail in excluded:
        yield json.dumps({"file": name, "reason": reason, "detail": detail}).encode("ascii") + b"\n"
