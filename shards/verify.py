"""Find each byte of a folder of shards that is not the one that was written, and name the sample that it belongs to.

Every file is compared with its SHA-256 in index.json; in a shard that differs, each sample's bytes (its tar headers,
image, json and padding) are compared with their hash in the table.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import xxhash
from tqdm import tqdm
from tyro.conf import Positional

from shards.index import EXCLUDED, INDEX, TABLE, DataError, Shard, decode, open_table, read

PLAIN_EVERY_S = 10.0  # between lines of progress where there is no terminal


@dataclass(frozen=True)
class Verify:
    """Check each byte of a folder of shards; exit code 0: whole, 1: damaged, 2: not a folder of shards."""

    path: Positional[Path]
    """The folder of shards."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads that read and hash."""


@dataclass(frozen=True)
class Part:
    """A shard and its place in the dataset."""

    path: Path
    shard: Shard
    split: str
    first: int  # the number of its first sample in the split
    rows: npt.NDArray[np.void] | None  # None: the table is damaged


def run_verify(args: Verify) -> int:
    """Print every damage in the folder and a summary, and return the exit code."""
    started, damages, parts = time.monotonic(), 0, []
    try:
        raw = read(args.path)
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        content = decode(args.path, raw)
        check_index(raw, content["index_sha256"])
        table = whole_table(args.path, content)
        parts = list(split_parts(args.path, content, table))
        found = check_files(args.path, content, {part.shard.name for part in parts})
    except DataError as error:
        found = [str(error)]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        found = [f"{INDEX}: damaged ({error!r}); build the shards again"]
    with ThreadPoolExecutor(max(args.workers, 1), thread_name_prefix="verify") as threads:
        for damage in [*found, *check_shards(parts, threads)]:
            damages += 1
            print(damage)
    samples, size = sum(part.shard.samples for part in parts), sum(part.shard.bytes for part in parts)
    verdict = f"DAMAGED, {damages} findings" if damages else "whole"
    seconds = time.monotonic() - started
    print(
        f"{args.path}: {verdict}; {samples:,} samples in {len(parts):,} shards, {size / 1e6:,.1f} MB, {seconds:.1f} s"
    )
    return 1 if damages else 0


def check_index(raw: bytes, sha256: str) -> None:
    """Compare index.json with the SHA-256 that it states of itself: of its text with zeros in that place.

    Raises:
        ValueError: they differ.
    """
    if hashlib.sha256(raw.replace(sha256.encode(), b"0" * len(sha256))).hexdigest() != sha256:
        raise ValueError("its bytes are not those that were written")


def split_parts(path: Path, content: Mapping[str, Any], table: npt.NDArray[np.void] | None) -> Iterator[Part]:
    """Yield the shards that the index names.

    Raises:
        ValueError: the counts in the index contradict each other.
    """
    row = 0
    for split, described in content["splits"].items():
        first = 0
        for shard in (Shard(**fields) for fields in described["shards"]):
            rows = None if table is None else table[row + first : row + first + shard.samples]
            yield Part(path / shard.name, shard, split, first, rows)
            first += shard.samples
        if first != described["samples"]:
            raise ValueError(f"the shards of {split} have {first} samples, not {described['samples']}")
        row += first


def whole_table(path: Path, content: Mapping[str, Any]) -> npt.NDArray[np.void] | None:
    """Return the table, or None where it is missing or not the one that was written."""
    if check_file(path / TABLE, content["table_sha256"]):
        return None
    return open_table(path, sum(split["samples"] for split in content["splits"].values()))


def check_files(path: Path, content: Mapping[str, Any], shards: set[str]) -> list[str]:
    """Check everything but the shards: the files beside them, and that there are no others."""
    known = {TABLE: content["table_sha256"], EXCLUDED: content["excluded_sha256"]}
    found = [damage for name, sha256 in known.items() if (damage := check_file(path / name, sha256))]
    present = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    strange = sorted(present - shards - set(known) - {INDEX})
    return found + [f"{name}: does not belong here: {INDEX} does not know it" for name in strange]


def check_file(path: Path, sha256: str) -> str | None:
    """Return what is wrong with a file, None: nothing."""
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return None
    except FileNotFoundError:
        return f"{path.name}: missing"
    except OSError as error:
        return f"{path.name}: cannot be read: {error.strerror}"
    return f"{path.name}: its bytes are not those that {INDEX} knows"


def check_shards(parts: list[Part], threads: ThreadPoolExecutor) -> Iterator[str]:
    """Check the shards side by side and yield their damages in order, while the progress is shown."""
    said = time.monotonic()
    size = sum(part.shard.bytes for part in parts)
    terminal = sys.stderr.isatty()
    with tqdm(total=size, unit="B", unit_scale=True, disable=not terminal, leave=False, desc="verify") as bar:
        for done, (part, found) in enumerate(zip(parts, threads.map(check_shard, parts), strict=True), 1):
            bar.update(part.shard.bytes)
            if not terminal and time.monotonic() > said + PLAIN_EVERY_S:
                said = time.monotonic()
                print(f"{done} of {len(parts)} shards checked", file=sys.stderr)
            yield from found


def check_shard(part: Part) -> list[str]:
    """Return what is wrong with a shard."""
    name = part.shard.name
    damage = check_file(part.path, part.shard.sha256)
    if damage is None:
        right = part.path.stat().st_size == part.shard.bytes
        return [] if right else [f"{name}: is whole, but {INDEX} is wrong about its size"]
    if not part.path.is_file():
        return [damage]
    if part.rows is None:
        return [f"{damage}; {TABLE} is damaged too, so its samples cannot be told apart"]
    try:
        with part.path.open("rb") as file:
            found = list(locate(file, part, part.rows))
    except OSError as error:
        found = [f"cannot be read: {error.strerror}"]
    return [
        f"{name}: {what}" for what in found or [f"every byte of its samples is right, so {INDEX} is wrong about it"]
    ]


def locate(file: BinaryIO, part: Part, rows: npt.NDArray[np.void]) -> Iterator[str]:
    """Yield the damaged places of a shard."""
    size, end = os.fstat(file.fileno()).st_size, 0
    bounds = [*rows["start"].tolist(), part.shard.bytes]
    for i, expected in enumerate(rows["region_hash"].tolist()):
        file.seek(bounds[i])
        data = file.read(bounds[i + 1] - bounds[i])
        headers = list(tar_headers(data))
        if i == len(rows) - 1 and headers:  # its last member ends it; what follows ends the archive
            data = data[: padded_end(headers[-1])]
        end = bounds[i] + len(data)
        sample = f"sample {part.first + i} of {part.split}{name_of(headers, data)}"
        if end < bounds[i + 1] and end == size:
            lost = f" and all from the next to {part.first + len(rows) - 1}" if i < len(rows) - 1 else ""
            yield f"ends {part.shard.bytes - size} bytes early: {sample} is damaged{lost}"
            return
        if xxhash.xxh3_64_intdigest(data) != expected:
            yield f"{sample} is damaged"
    file.seek(end)
    if size != part.shard.bytes or any(file.read()):
        yield f"bytes outside any sample, from {end} on, are damaged ({size - part.shard.bytes:+d} bytes)"


def tar_headers(data: bytes) -> Iterator[tarfile.TarInfo]:
    """Yield the whole tar headers, wherever they are: one that is damaged hides none of the others."""
    for position in range(0, len(data) - tarfile.BLOCKSIZE + 1, tarfile.BLOCKSIZE):
        block = data[position : position + tarfile.BLOCKSIZE]
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            continue
        header.offset_data = position + tarfile.BLOCKSIZE
        yield header


def padded_end(header: tarfile.TarInfo) -> int:
    """Return where a member ends, its padding included."""
    return header.offset_data + -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def name_of(headers: list[tarfile.TarInfo], data: bytes) -> str:
    """Return a sample's key and the picture it was made from, as far as they can be read."""
    known = []
    for header in headers:
        key, _, kind = header.name.partition(".")
        known.append(key)
        if kind == "json":
            try:
                known.append(str(json.loads(data[header.offset_data :][: header.size])["source"]))
            except (ValueError, LookupError, TypeError):
                continue  # this is where the damage is
    return f" ({', '.join(dict.fromkeys(known))})" if known else ""
