"""Write the part of a task that lies on one side of the hold-out: a tar, its table rows, and what the index needs."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import xxhash

from shards.building.statistics import Statistics, count_picture
from shards.dataset.table import ROW
from shards.images.decode import Picture
from shards.images.fingerprint import fingerprint
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
    extra: str
    """JSON of its further labels and numbers; empty: none."""
    known_exclusion: tuple[str, str] | None = None
    """Reason and detail if it is known to crash its process and must not be opened again."""


@dataclass
class PartResult:
    """The samples of a task on one side of the hold-out."""

    samples: int = 0
    length: int = 0
    """Bytes of the tar; 0: there is none."""
    end: int = 0
    """Bytes of its samples, without the end mark."""
    sha256: str = ""
    rows: bytes = b""
    """The bytes of an array of index.ROW; labels are those of the listing."""
    positions: bytes = b""
    """The bytes of an array of <i8: the place of each sample in the listing."""
    statistics: Statistics = field(default_factory=Statistics)
    facts: list[Statistics] = field(default_factory=list)
    """Of each sample alone, so that it can be left out; empty: none is left out."""
    prints: bytes = b""
    """The bytes of an array of fingerprint.PRINT; empty where nearly equal pictures are not looked for."""


Deduplicate = Literal["none", "exact", "near"]


class MemberPlace(NamedTuple):
    """Where a sample lies in its tar."""

    start: int  # first byte of its region
    end: int
    offset: int  # first byte of its image
    size: int  # of the image, in bytes
    label: int


class PartWriter:
    """Writes the tar of one side, which is created with the first sample; use it in a `with` block.

    Args:
        path: of the unfinished tar.
        extension: of the images.
        deduplicate: decides what is kept of each sample alone.
    """

    def __init__(self, path: Path, extension: str, deduplicate: Deduplicate) -> None:
        self.path, self.extension, self.deduplicate = path, extension, deduplicate
        self.file: BinaryIO | None = None
        self.writer: Any = None  # a webdataset.TarWriter
        self.places: list[MemberPlace] = []
        self.result = PartResult()
        self.positions: list[int] = []
        self.prints: list[bytes] = []

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def add(self, listed: ListedPicture, picture: Picture, image: bytes) -> None:
        """Write a sample.

        Args:
            listed: its file.
            picture: decoded.
            image: as it is stored.

        Raises:
            OSError: it cannot be written.
        """
        if self.file is None:
            from webdataset import TarWriter  # slow to import, and only the processes that write need it

            self.file = self.path.open("w+b")
            self.writer = TarWriter(self.file, encoder=False, user="lienzo", group="lienzo", mode=0o644, mtime=0)
        text = sample_json(listed, picture)
        start = self.writer.tarstream.offset
        self.writer.write({"__key__": f"{listed.position:09d}", self.extension: image, "json": text})
        offset = start + BLOCK  # after the tar header; the writer sorts a sample's members by extension
        if self.extension > "json":  # the json member comes first: its header and its padded content
            offset += BLOCK + -(-len(text) // BLOCK) * BLOCK
        label = -1 if listed.label is None else listed.label
        self.places.append(MemberPlace(start, self.writer.tarstream.offset, offset, len(image), label))
        self.positions.append(listed.position)
        self.describe(listed, picture)

    def describe(self, listed: ListedPicture, picture: Picture) -> None:
        """Keep what the index, and leaving out, must know of a sample."""
        statistics = Statistics()
        count_picture(statistics, picture, listed.label)
        self.result.statistics.update(statistics)
        if self.deduplicate != "none":
            self.result.facts.append(statistics)
        if self.deduplicate == "near":
            self.prints.append(fingerprint(picture.pixels).tobytes())

    def finish(self, path: Path | None) -> PartResult:
        """Complete the tar, durably, give it its name, and return what it holds.

        Args:
            path: the name; None: the tar is removed.

        Raises:
            OSError: it cannot be written.
        """
        if self.file is None:
            return self.result
        self.writer.close()
        hash_part(self.file, self.places, self.result)
        self.result.positions = np.array(self.positions, dtype="<i8").tobytes()
        self.result.prints = b"".join(self.prints)
        self.file.flush()
        os.fsync(self.file.fileno())
        if path:
            self.path.replace(path)
        else:
            self.path.unlink()
        return self.result


def sample_json(listed: ListedPicture, picture: Picture) -> bytes:
    """Return the content of the json member of a sample."""
    facts = {
        "file": decode_name(listed.name),
        "label": listed.label_name,
        "width": picture.width,
        "height": picture.height,
    }
    return json.dumps(facts | (json.loads(listed.extra) if listed.extra else {})).encode("ascii")


def hash_part(file: BinaryIO, places: list[MemberPlace], result: PartResult) -> None:
    """Read a tar back, and put its hashes and the table rows of its samples into the result.

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
    result.end = file.tell()
    sha256.update(file.read())
    result.samples, result.length = len(rows), file.tell()
    result.sha256, result.rows = sha256.hexdigest(), rows.tobytes()
