"""Find the damaged samples of a shard, and name the files that they were made from if that can still be read."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import xxhash

from shards.dataset.splits import Shard
from shards.storage.place import Place


@dataclass(frozen=True)
class ShardRows:
    """A shard, its place in the dataset, and its rows of the table."""

    path: Place
    shard: Shard
    split: str
    first: int  # the number of its first sample in the split
    rows: npt.NDArray[np.void] | None  # None: the table is damaged
    own: bool = True  # False: it is others', was indexed in place, and has members that are no samples


def locate_corruption(file: BinaryIO, part: ShardRows, rows: npt.NDArray[np.void]) -> Iterator[str]:
    """Yield a description of each damaged sample of a shard, and of damage outside of samples."""
    if not part.own:
        yield from locate_in_place(file, part, rows)
        return
    size, end, last = os.fstat(file.fileno()).st_size, 0, len(rows) - 1
    bounds = [*rows["start"].tolist(), part.shard.bytes]
    for i, expected in enumerate(rows["region_hash"].tolist()):
        file.seek(bounds[i])
        data = file.read(bounds[i + 1] - bounds[i])
        if i == last:
            # The end mark of the archive follows, which is no part of the last sample's region.
            data = data[: samples_end(data)]
        end = bounds[i] + len(data)
        if xxhash.xxh3_64_intdigest(data) == expected:
            continue
        sample = f"sample {part.first + i} of {part.split}{describe_sample(data)}"
        if end == size < bounds[i + 1]:
            others = f", and all that follow up to {part.first + last}" if i < last else ""
            yield f"ends {part.shard.bytes - size} bytes early: {sample} is damaged{others}"
            return
        yield f"{sample} is damaged"
        if i == last:
            return  # its end is unknown, so what follows it cannot be checked
    file.seek(end)
    if size != part.shard.bytes or any(file.read()):
        yield f"bytes outside any sample, from {end} on, are damaged ({size - part.shard.bytes:+d} bytes)"


def locate_in_place(file: BinaryIO, part: ShardRows, rows: npt.NDArray[np.void]) -> Iterator[str]:
    """Yield a description of each damaged sample of a shard that was indexed in place."""
    for i, row in enumerate(rows):
        start, size, block = int(row["start"]), int(row["size"]), tarfile.BLOCKSIZE
        file.seek(start)
        data = file.read(int(row["offset"]) - start + -(-size // block) * block)
        if xxhash.xxh3_64_intdigest(data) != int(row["region_hash"]):
            yield f"sample {part.first + i} of {part.split}{describe_sample(data)} is damaged"


def tar_headers(data: bytes) -> Iterator[tarfile.TarInfo]:
    """Yield the intact tar headers at any block: unlike with tarfile, a damaged one does not hide those after it."""
    for position in range(0, len(data) - tarfile.BLOCKSIZE + 1, tarfile.BLOCKSIZE):
        block = data[position : position + tarfile.BLOCKSIZE]
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            continue
        header.offset_data = position + tarfile.BLOCKSIZE
        yield header


def samples_end(data: bytes) -> int:
    """Return where the last member ends, with its padding; the end mark of the archive follows."""
    for header in reversed(list(tar_headers(data))):
        return header.offset_data + -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return len(data)


def describe_sample(data: bytes) -> str:
    """Return a sample's key and source file in brackets, as far as they can be read."""
    known = []
    for header in tar_headers(data):
        if not header.isreg():
            continue  # what a long name or an odd time is written in
        key, _, kind = header.name.partition(".")
        known.append(key)
        if kind == "json":
            try:
                known.append(str(json.loads(data[header.offset_data :][: header.size])["file"]))
            except (ValueError, LookupError, TypeError):
                continue  # the json member is the damaged part
    return f" ({', '.join(dict.fromkeys(known))})" if known else ""
