"""`python -m shards verify`: find each changed byte in a folder of shards, and name the sample that it belongs to.

Every file is compared with its SHA-256 in index.json; in a shard that differs, each sample's bytes (its tar headers,
image, json and padding) are compared with their hash in the table.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm
from tyro.conf import Positional

from command_line.help_page import HelpPage
from command_line.printable import printable
from shards.building.options import MAX_WORKERS
from shards.dataset.corruption import ShardRows, locate_corruption
from shards.dataset.files import BUILD_AGAIN, EXCLUDED, INDEX, LABELS, TABLE
from shards.dataset.index import DataError, parse_index, read_index, shards_at
from shards.dataset.splits import read_splits
from shards.dataset.table import map_table
from shards.storage.argument import PlaceArgument
from shards.storage.errors import StorageError
from shards.storage.local_copy import local_copy
from shards.storage.place import Place
from shards.storage.storage import open_storage

LINE_INTERVAL_S = 10.0  # between lines of progress where there is no terminal


@dataclass(frozen=True)
class Verify:
    """Check each byte of a folder of shards; exit code 0: whole, 1: damaged, 2: not a folder of shards."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"my-shards": "each byte of it"})

    path: Positional[PlaceArgument]
    """The folder of shards, or its URL: each file is then copied here, checked, and removed again."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads that read and hash."""


def run_verify(args: Verify) -> int:
    """Run the command: print every damage and a summary, and return the exit code."""
    try:
        if not 1 <= args.workers <= MAX_WORKERS:
            raise DataError(f"--workers must be from 1 to {MAX_WORKERS}, but is {args.workers}")
        return verify_folder(args.path, read_index(args.path), args.workers)
    except DataError as error:
        print(printable(error), file=sys.stderr)
        return 2


def verify_folder(path: Place, raw: bytes, workers: int) -> int:
    """Print every damage and a summary, and return the exit code.

    Raises:
        StorageError: the files are remote, and cannot be read.
    """
    started, damages, parts = time.monotonic(), 0, []
    try:
        content = parse_index(path, raw)
        check_index(raw, content["index_sha256"])
        table = read_table(path, content)
        parts = list(shards_of(path, content, table))
        found = check_files(path, content, {part.shard.name for part in parts})
    except StorageError:
        raise
    except DataError as error:
        found = [str(error)]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        found = [f"{INDEX}: damaged ({error!r}): {BUILD_AGAIN}"]
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as threads:
        for damage in [*found, *check_shards(parts, threads)]:
            damages += 1
            print(damage)
    samples, files = sum(part.shard.samples for part in parts), {part.path: part.shard.bytes for part in parts}
    verdict = f"DAMAGED, findings: {damages}" if damages else "whole"
    size, seconds = sum(files.values()) / 1e6, time.monotonic() - started
    print(f"{path}: {verdict}; {samples:,} samples in {len(files):,} shards, {size:,.1f} MB, {seconds:.1f} s")
    return 1 if damages else 0


def check_index(raw: bytes, sha256: str) -> None:
    """Compare index.json with its own SHA-256, which is that of its text with zeros in its place.

    Raises:
        ValueError: they differ.
    """
    if hashlib.sha256(raw.replace(sha256.encode(), b"0" * len(sha256))).hexdigest() != sha256:
        raise ValueError("its bytes are not those that were written")


def shards_of(path: Place, content: Mapping[str, Any], table: npt.NDArray[np.void] | None) -> Iterator[ShardRows]:
    """Yield the shards that the index names, with their rows of the table.

    Raises:
        ValueError: the counts in the index contradict each other.
    """
    root, own = shards_at(path, content), "shards_at" not in content
    for name, split in read_splits(content):
        first = 0
        for shard in split.shards:
            rows = None if table is None else table[split.first + first : split.first + first + shard.samples]
            yield ShardRows(root / shard.name, shard, name, first, rows, own)
            first += shard.samples
        if first != split.samples:
            raise ValueError(f"the shards of {name} have {first} samples, not {split.samples}")


def read_table(path: Place, content: Mapping[str, Any]) -> npt.NDArray[np.void] | None:
    """Return the table; None: it is missing or damaged, which `check_files` reports."""
    with suppress(FileNotFoundError), local_copy(path / TABLE) as file:
        if check_file(file, TABLE, content["table_sha256"]) is None:
            # A copy stays readable, though it is removed.
            return map_table(file, sum(split["samples"] for split in content["splits"].values()))
    return None


def check_files(path: Place, content: Mapping[str, Any], shards: set[str]) -> list[str]:
    """Return what is wrong with the files beside the shards: damaged, missing, or unknown ones."""
    known = {TABLE: content["table_sha256"], EXCLUDED: content["excluded_sha256"]}
    known |= content.get("cards", {})
    if attributes := content.get("attributes"):
        known[LABELS] = attributes["sha256"]
    found = [damage for name, sha256 in known.items() if (damage := check_place(path / name, sha256))]
    # Beside tars that were indexed in place there may be anything.
    strange = [] if "shards_at" in content else sorted(names_in(path) - shards - set(known) - {INDEX})
    return found + [f"{name}: does not belong here: {INDEX} does not know it" for name in strange]


def names_in(path: Place) -> set[str]:
    """Return the names of all files of a dataset; of a web server, which lists none, nothing."""
    if isinstance(path, Path):
        return {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    return set() if path.scheme in ("http", "https") else {info.name for info in open_storage(path).list()}


def check_place(place: Place, sha256: str) -> str | None:
    """Return what is wrong with a file, wherever it is; None: nothing."""
    try:
        with local_copy(place) as path:
            return check_file(path, place.name, sha256)
    except FileNotFoundError:
        return f"{place.name}: missing"


def check_file(path: Path, name: str, sha256: str) -> str | None:
    """Return what is wrong with a file of this name; None: nothing."""
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return None
    except FileNotFoundError:
        return f"{name}: missing"
    except OSError as error:
        return f"{name}: cannot be read: {error.strerror}"
    return f"{name}: its bytes are not those that {INDEX} knows"


def check_shards(parts: list[ShardRows], threads: ThreadPoolExecutor) -> Iterator[str]:
    """Check the shards in parallel, show the progress, and yield the damages in the order of the shards."""
    said, shards = time.monotonic(), defaultdict[Place, list[ShardRows]](list)
    for part in parts:
        shards[part.path].append(part)
    size = sum(part[0].shard.bytes for part in shards.values())
    terminal = sys.stderr.isatty()
    with tqdm(total=size, unit="B", unit_scale=True, disable=not terminal, leave=False, desc="verify") as bar:
        checked = zip(shards.values(), threads.map(check_shard, shards.values()), strict=True)
        for done, (here, found) in enumerate(checked, 1):
            bar.update(here[0].shard.bytes)
            if not terminal and time.monotonic() > said + LINE_INTERVAL_S:
                said = time.monotonic()
                print(f"{done} of {len(shards)} shards checked", file=sys.stderr)
            yield from found


def check_shard(parts: list[ShardRows]) -> list[str]:
    """Return what is wrong with a shard; one that was indexed in place may hold samples of both sides."""
    shard = parts[0].shard
    try:
        with local_copy(parts[0].path) as path:
            damage = check_file(path, shard.name, shard.sha256)
            if damage is None:
                right = path.stat().st_size == shard.bytes
                return [] if right else [f"{shard.name}: is whole, but {INDEX} is wrong about its size"]
            found = [line for part in parts for line in locate_damage(path, part, damage)]
            so = f"{INDEX} is wrong about it" if parts[0].own else "what lies outside of them was changed"
            return found or [f"{shard.name}: every byte of its samples is right, so {so}"]
    except FileNotFoundError:
        return [f"{shard.name}: missing"]


def locate_damage(path: Path, part: ShardRows, damage: str) -> list[str]:
    """Return what is wrong with the samples of a damaged shard, or a copy of one."""
    name = part.shard.name
    if not os.path.isfile(path):  # Path.is_file raises where a name is too long
        return [damage]
    if part.rows is None:
        return [f"{damage}; {TABLE} is damaged too, so its samples cannot be told apart"]
    try:
        with path.open("rb") as file:
            found = list(locate_corruption(file, part, part.rows))
    except OSError as error:
        found = [f"cannot be read: {error.strerror}"]
    return [f"{name}: {what}" for what in found]
