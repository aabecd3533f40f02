"""Write one shard: consecutive listed pictures become a tar, and all that the index must know of it is collected."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import xxhash

from shards.building.statistics import Statistics, count_picture
from shards.dataset.index import ROW
from shards.exclusion import Excluded
from shards.images.decode import Decoding, Picture, decode_image
from shards.images.encode import ENCODINGS
from shards.sources.source import Source
from shards.sources.source_entry import decode_name

BLOCK = 512  # bytes; what tars are made of


@dataclass(frozen=True)
class ListedPicture:
    """One picture of the listing."""

    position: int  # among all listed files, sorted by name; the key of its sample
    name: bytes
    place: str
    label: int | None
    label_name: str | None
    known_exclusion: tuple[str, str] | None = None
    """Reason and detail if it is known to crash its process and must not be opened again."""


@dataclass(frozen=True)
class ShardTask:
    """One shard to make."""

    split: int
    number: int
    pictures: list[ListedPicture]
    trial: bool = False
    """Only find out whether the pictures can be decoded; the shard is removed."""


@dataclass(frozen=True)
class ShardOptions:
    """What is the same for all shards of a build."""

    source: Source
    decoding: Decoding
    encode: str
    max_bytes: int
    folder: Path
    """The folder of finished shards until they get their final names."""


@dataclass
class ShardResult:
    """What a task produced."""

    samples: int = 0
    length: int = 0
    """Bytes of the shard."""
    sha256: str = ""
    rows: bytes = b""
    """The bytes of an array of index.ROW; labels are those of the listing."""
    excluded: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, reason and detail of each excluded picture."""
    statistics: Statistics = field(default_factory=Counter)


class MemberPlace(NamedTuple):
    """Where a sample lies in its shard."""

    start: int  # first byte of its region
    end: int
    offset: int  # first byte of its image
    size: int  # of the image, in bytes
    label: int


def shard_path(folder: Path, split: int, number: int) -> Path:
    """Return the path of a finished shard before it gets its final name."""
    return folder / f"{split}-{number:06d}.tar"


def unfinished_path(folder: Path, task: ShardTask, pid: int) -> Path:
    """Return the path at which a process writes the shard of a task; the pid keeps two attempts apart."""
    return shard_path(folder, task.split, task.number).with_suffix(f".{pid}")


def write_shard(task: ShardTask, options: ShardOptions, on_picture: Callable[[int], None]) -> ShardResult:
    """Write the shard of a task, durably; it gets its name when it is complete. Without usable pictures there is none.

    Args:
        task: the pictures.
        options: of the build.
        on_picture: called with the number of finished pictures, before each picture and at the end.

    Raises:
        OSError: the shard cannot be written.
    """
    result = ShardResult()
    path = shard_path(options.folder, task.split, task.number)
    unfinished = unfinished_path(options.folder, task, os.getpid())
    with unfinished.open("w+b") as file:
        places = write_samples(file, decode_pictures(task, options, result, on_picture), options.encode)
        if places:
            hash_shard(file, places, result)
            file.flush()
            os.fsync(file.fileno())
    if places and not task.trial:
        unfinished.replace(path)
    else:
        unfinished.unlink()
    return result


def decode_pictures(
    task: ShardTask, options: ShardOptions, result: ShardResult, on_picture: Callable[[int], None]
) -> Iterator[tuple[ListedPicture, Picture]]:
    """Yield the usable pictures, and add the others to `result.excluded`."""
    for number, listed in enumerate(task.pictures):
        on_picture(number)
        try:
            if listed.known_exclusion:
                raise Excluded(*listed.known_exclusion)
            picture = decode_image(options.source.read(listed.name, listed.place, options.max_bytes), options.decoding)
        except Excluded as error:
            result.excluded.append((decode_name(listed.name), error.reason, error.detail))
            continue
        count_picture(result.statistics, picture, listed.label)
        yield listed, picture
    on_picture(len(task.pictures))


def write_samples(file: BinaryIO, samples: Iterable[tuple[ListedPicture, Picture]], encode: str) -> list[MemberPlace]:
    """Write a tar, and return the place of each sample in it."""
    from webdataset import TarWriter  # slow to import, and only the processes that write need it

    encoding, places = ENCODINGS[encode], []
    with TarWriter(file, encoder=False, user="lienzo", group="lienzo", mode=0o644, mtime=0) as writer:
        for listed, picture in samples:
            image, text = encoding.encode(picture.pixels), sample_json(listed, picture)
            start = writer.tarstream.offset
            writer.write({"__key__": f"{listed.position:09d}", encoding.extension: image, "json": text})
            offset = start + BLOCK  # after the tar header; the writer sorts a sample's members by extension
            if encoding.extension > "json":  # the json member comes first: its header and its padded content
                offset += BLOCK + -(-len(text) // BLOCK) * BLOCK
            label = -1 if listed.label is None else listed.label
            places.append(MemberPlace(start, writer.tarstream.offset, offset, len(image), label))
    return places


def sample_json(listed: ListedPicture, picture: Picture) -> bytes:
    """Return the content of the json member of a sample."""
    return json.dumps(
        {"file": decode_name(listed.name), "label": listed.label_name, "width": picture.width, "height": picture.height}
    ).encode("ascii")


def hash_shard(file: BinaryIO, places: list[MemberPlace], result: ShardResult) -> None:
    """Read the shard back, and put its hashes and the table rows of its samples into the result.

    The bytes are read from the file, not taken from memory, so that an error while writing does not get a valid hash.
    """
    rows = np.zeros(len(places), dtype=ROW)
    sha256 = hashlib.sha256()
    file.seek(0)
    for i, place in enumerate(places):
        region = file.read(place.end - place.start)
        sha256.update(region)
        image = memoryview(region)[place.offset - place.start :][: place.size]
        hashes = xxhash.xxh3_64_intdigest(image), xxhash.xxh3_64_intdigest(region)
        rows[i] = (place.start, place.offset, place.size, place.label, *hashes)
    sha256.update(file.read())
    result.samples, result.length, result.sha256, result.rows = (
        len(rows),
        file.tell(),
        sha256.hexdigest(),
        rows.tobytes(),
    )
