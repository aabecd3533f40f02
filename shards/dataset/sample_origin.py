"""Where a sample of a dataset is, and what it was made of: for people who look for a picture."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass

import numpy as np

from shards.dataset.corruption import tar_headers
from shards.dataset.shard_files import SampleBytes
from shards.dataset.stream import Reader

AROUND = 16 * tarfile.BLOCKSIZE  # bytes before and behind an image in which its JSON member is looked for


@dataclass(frozen=True)
class SampleOrigin:
    """One sample."""

    split: str
    sample: int
    """Its number in the split."""
    shard: str
    """The shard's file."""
    key: str | None
    """Its WebDataset key in the shard."""
    file: str | None
    """The picture that it was made of, as the build knew it."""


def sample_origin(reader: Reader, number: int) -> SampleOrigin:
    """Return where a sample is; the tar headers around its image say what it is called.

    Raises:
        OSError, StorageError: its shard cannot be read.
    """
    found = reader.locate(np.array([number]))[0]
    split, shard = reader.split, reader.split.shard_name(found.shard)
    # Members begin at whole blocks, and the JSON member may stand before the image or behind it.
    start = max(0, found.offset - AROUND)
    stop = min(found.offset + found.size + AROUND, int(split.columns["bytes"][found.shard]))
    data = reader.files.read(SampleBytes(found.shard, start, stop - start, 0))
    headers = {header.name: header for header in tar_headers(data) if header.isreg()}
    name = next((name for name, header in headers.items() if start + header.offset_data == found.offset), None)
    if name is None:
        return SampleOrigin(split.name, number, shard, None, None)
    key = webdataset_key(name)
    member = headers.get(f"{key}.json")
    return SampleOrigin(split.name, number, shard, key, None if member is None else file_in(data, member))


def webdataset_key(name: str) -> str:
    """Return the key of a member: its name up to the first dot behind the last slash."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def file_in(data: bytes, member: tarfile.TarInfo) -> str | None:
    """Return the source file that a JSON member tells; None: it tells none, or is not whole."""
    try:
        told = json.loads(data[member.offset_data :][: member.size])
        return str(told["file"])
    except (ValueError, LookupError, TypeError):
        return None
