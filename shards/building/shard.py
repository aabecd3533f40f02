"""One shard: a run of listed pictures becomes a tar, and everything that the index has to know of it."""

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

from shards.building.statistics import Tally, tally_picture
from shards.dataset.index import ROW
from shards.images.decode import Decoding, Picture, decode
from shards.images.encode import ENCODINGS
from shards.images.exclusion import Excluded
from shards.sources.source import Source
from shards.sources.source_entry import to_text

BLOCK = 512  # bytes; what tars are made of


@dataclass(frozen=True)
class Listed:
    """One picture to shard."""

    position: int  # among all listed files, sorted
    name: bytes
    place: str
    label: int | None
    label_name: str | None
    verdict: tuple[str, str] | None = None
    """Reason and detail, when it is known to end its process and is not to be opened again."""


@dataclass(frozen=True)
class ShardTask:
    """The pictures of one shard."""

    split: int
    number: int
    pictures: list[Listed]
    trial: bool = False
    """Whether it is only to be seen if its pictures can be decoded: no shard is left."""


@dataclass(frozen=True)
class ShardOptions:
    """How shards are made of pictures; the same for all shards of a build."""

    source: Source
    decoding: Decoding
    encode: str
    max_bytes: int
    folder: Path
    """Where finished shards go."""


@dataclass
class ShardResult:
    """What became of a job."""

    samples: int = 0
    length: int = 0
    """Bytes of the shard."""
    sha256: str = ""
    rows: bytes = b""
    """An array of index.ROW; labels are those of the listing."""
    excluded: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, reason, detail."""
    tally: Tally = field(default_factory=Counter)


class MemberPlace(NamedTuple):
    """Where a sample lies in its shard."""

    start: int  # first byte of its region
    end: int
    offset: int  # first byte of its image
    size: int  # of the image, in bytes
    label: int


def shard_file(folder: Path, split: int, number: int) -> Path:
    """Return where a finished shard waits for its final name."""
    return folder / f"{split}-{number:06d}.tar"


def unfinished_file(folder: Path, job: ShardTask, pid: int) -> Path:
    """Return where a process writes the shard of a job."""
    return shard_file(folder, job.split, job.number).with_suffix(f".{pid}")


def write_shard(job: ShardTask, recipe: ShardOptions, on_picture: Callable[[int], None]) -> ShardResult:
    """Write the shard of a job, durably and under its name only when it is whole; there is none without any picture.

    Args:
        job: what to write.
        recipe: how.
        on_picture: told the number of pictures done so far, before each and at the end.

    Raises:
        OSError: the shard cannot be written.
    """
    piece = ShardResult()
    path = shard_file(recipe.folder, job.split, job.number)
    unfinished = unfinished_file(recipe.folder, job, os.getpid())
    with unfinished.open("w+b") as file:
        places = write_samples(file, decoded(job, recipe, piece, on_picture), recipe.encode)
        if places:
            survey(file, places, piece)
            file.flush()
            os.fsync(file.fileno())
    if places and not job.trial:
        unfinished.replace(path)
    else:
        unfinished.unlink()
    return piece


def decoded(
    job: ShardTask, recipe: ShardOptions, piece: ShardResult, on_picture: Callable[[int], None]
) -> Iterator[tuple[Listed, Picture]]:
    """Yield the pictures that can be used, and note the others in the piece."""
    for number, listed in enumerate(job.pictures):
        on_picture(number)
        try:
            if listed.verdict:
                raise Excluded(*listed.verdict)
            picture = decode(recipe.source.read(listed.name, listed.place, recipe.max_bytes), recipe.decoding)
        except Excluded as error:
            piece.excluded.append((to_text(listed.name), error.reason, error.detail))
            continue
        tally_picture(piece.tally, picture, listed.label)
        yield listed, picture
    on_picture(len(job.pictures))


def write_samples(file: BinaryIO, samples: Iterable[tuple[Listed, Picture]], encode: str) -> list[MemberPlace]:
    """Write a tar and return where its samples lie."""
    from webdataset import TarWriter  # takes long to import, and only the processes that write need it

    encoding, places = ENCODINGS[encode], []
    with TarWriter(file, encoder=False, user="lienzo", group="lienzo", mode=0o644, mtime=0) as writer:
        for listed, picture in samples:
            image, text = encoding.encode(picture.pixels), describe(listed, picture)
            start = writer.tarstream.offset
            writer.write({"__key__": f"{listed.position:09d}", encoding.extension: image, "json": text})
            offset = start + BLOCK  # the writer sorts a sample's members by extension
            if encoding.extension > "json":
                offset += BLOCK + -(-len(text) // BLOCK) * BLOCK
            label = -1 if listed.label is None else listed.label
            places.append(MemberPlace(start, writer.tarstream.offset, offset, len(image), label))
    return places


def describe(listed: Listed, picture: Picture) -> bytes:
    """Return the json member of a sample."""
    return json.dumps(
        {"file": to_text(listed.name), "label": listed.label_name, "width": picture.width, "height": picture.height}
    ).encode("ascii")


def survey(file: BinaryIO, places: list[MemberPlace], piece: ShardResult) -> None:
    """Read the shard back: hash it, and each sample's region and image as they lie in the file."""
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
    piece.samples, piece.length, piece.sha256, piece.rows = len(rows), file.tell(), sha256.hexdigest(), rows.tobytes()
