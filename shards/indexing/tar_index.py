"""Index one tar: decode each of its pictures as training will, and note where it is, its hashes, side and label."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xxhash

from shards.building.holdout import HoldOut
from shards.building.statistics import Statistics, count_picture
from shards.dataset.table import ROW
from shards.exclusion import Excluded
from shards.images.decode import Picture, decode_image
from shards.images.decoding import Decoding
from shards.images.encode import encode_raw
from shards.images.npy import as_image
from shards.indexing.tar_samples import MAX_LABEL_BYTES, LabelMember, Member, TarSample, read_samples
from shards.storage.errors import StorageError
from shards.storage.place import Place, Url
from shards.storage.storage import open_storage

BLOCK = 512  # bytes; what tars are made of
FOUND = np.dtype([("row", ROW), ("pixels", "<u8"), ("side", "u1")])
"""A sample: its row of the table without a label, the XXH3-64 of its pixels as `build --encode raw` stores them, and
the side that follows from that."""


@dataclass(frozen=True)
class TarTask:
    """A tar to index."""

    number: int
    name: str
    deadly: tuple[tuple[int, str, str], ...] = ()
    """Number, reason and detail of the pictures that end their process: they are not opened again."""


@dataclass
class TarResult:
    """What is known of a tar."""

    length: int = 0
    sha256: str = ""
    found: bytes = b""
    """The bytes of an array of FOUND."""
    names: list[str] = field(default_factory=list)
    """Of each sample's picture."""
    labels: list[str | None] = field(default_factory=list)
    facts: list[Statistics] = field(default_factory=list)
    """Of each sample."""
    excluded: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, reason and detail."""


@dataclass(frozen=True)
class TarIndexer:
    """What is the same for all tars; what the workers do."""

    root: Place
    decoding: Decoding
    max_bytes: int
    holdout: HoldOut
    labels: LabelMember | None
    member: str | None
    work: Path
    """A folder for remote tars while they are read."""

    def run(self, task: TarTask, on_picture: Callable[[int], None]) -> TarResult:
        """Index a tar.

        Raises:
            OSError: a local tar cannot be read, a remote one cannot be fetched, or the disk for it is full.
        """
        result = TarResult()
        try:
            with self.opened(task.name) as file:
                result.sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # IO lacks readinto
                result.length = file.tell()
                file.seek(0)
                self.index(file, task, result, on_picture)
        except StorageError as error:
            raise OSError(str(error)) from error
        except OSError as error:
            raise OSError(f"{self.root / task.name} cannot be read: {error.strerror or error}") from error
        return result

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a tar; of a remote one, a copy that is gone afterwards."""
        if not isinstance(self.root, Url):
            with (self.root / name).open("rb") as file:
                yield file
            return
        storage = open_storage(self.root)
        with tempfile.TemporaryFile(dir=self.work) as copy:
            storage.copy(name, storage.head(name).size, copy)
            copy.seek(0)
            yield copy

    def index(self, file: BinaryIO, task: TarTask, result: TarResult, on_picture: Callable[[int], None]) -> None:
        """Fill in the samples, and what is excluded."""
        deadly = {number: (reason, detail) for number, reason, detail in task.deadly}
        rows, number = [], -1
        try:
            for number, sample in enumerate(read_samples(file, self.labels, self.member)):
                on_picture(number)
                name = f"{task.name}/{sample.picture.name}"
                try:
                    if number in deadly:
                        raise Excluded(*deadly[number])
                    row, label, picture = self.read(file.fileno(), sample)
                except Excluded as error:
                    result.excluded.append((name, error.reason, error.detail))
                    continue
                rows.append(row)
                result.names.append(sample.picture.name)
                result.labels.append(label)
                result.facts.append(Statistics())
                count_picture(result.facts[-1], picture, None)
        except Excluded as error:  # the rest of the tar
            result.excluded.append((task.name, error.reason, error.detail))
        on_picture(number + 1)
        result.found = np.array(rows, dtype=FOUND).tobytes()

    def read(self, descriptor: int, sample: TarSample) -> tuple[tuple[object, ...], str | None, Picture]:
        """Return the fields of FOUND, the label and the picture of a sample.

        Raises:
            Excluded: it cannot be used.
        """
        one = sample.picture
        data = read_member(descriptor, one, self.max_bytes)
        picture = decode_image(as_image(data), self.decoding)
        label = self.read_label(descriptor, sample.label)
        pixels = xxhash.xxh3_64_intdigest(encode_raw(picture.pixels))
        end = one.offset + -(-one.size // BLOCK) * BLOCK
        region = xxhash.xxh3_64_intdigest(os.pread(descriptor, end - one.start, one.start))
        row = (one.start, one.offset, one.size, -1, xxhash.xxh3_64_intdigest(data), region)
        return (row, pixels, self.holdout.side_of(pixels)), label, picture

    def read_label(self, descriptor: int, member: Member | None) -> str | None:
        """Return a label.

        Raises:
            Excluded: its member holds something else.
        """
        if member is None or self.labels is None:
            return None
        try:
            return self.labels.read(read_member(descriptor, member, MAX_LABEL_BYTES))
        except ValueError as error:
            raise Excluded("damaged", f"the label in {member.name}: {error}") from None

    def name_of(self, task: TarTask, number: int) -> str | None:
        """Return what a message calls a picture."""
        return f"picture {number} of {task.name}"

    def clean_up(self, task: TarTask, pid: int) -> None:
        """Do nothing: a temporary file is gone with its process."""


def read_member(descriptor: int, member: Member, max_bytes: int) -> bytes:
    """Return the content of a member.

    Raises:
        Excluded: it is longer than `max_bytes`, or the tar has become shorter.
    """
    if member.size > max_bytes:
        raise Excluded("too_many_bytes", f"{member.size} bytes")
    data = os.pread(descriptor, member.size, member.offset)
    if len(data) != member.size:
        raise Excluded("truncated", f"tar member: {len(data)} of {member.size} bytes")
    return data
