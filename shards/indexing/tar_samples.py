"""The samples of a WebDataset tar: consecutive members whose names differ behind the first dot alone.

    flowers/0001.jpg   flowers/0001.cls        one sample, key "flowers/0001"
    a.small.jpg        a.large.jpg             one sample with two pictures: `--member small.jpg` takes one of them
    2021.05.jpg        2021.06.jpg             the same to WebDataset; without --member each picture is a sample

A picture's label is in the member that has its name up to the last dot, or else up to the first one.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO

from shards.errors import DataError
from shards.exclusion import Excluded
from shards.sources.source_entry import encode_name
from shards.sources.tar_headers import TAR_ERRORS, TarHeader

PICTURES = frozenset(
    ["jpg", "jpeg", "png", "webp", "npy", "gif", "bmp", "tif", "tiff", "avif", "ppm", "pgm", "heic", "jxl", "jp2"]
)
"""Extensions of members that are pictures."""
LABEL_FIELD = "json:"
MAX_LABEL_BYTES = 1 << 20


@dataclass(frozen=True)
class LabelMember:
    """Where labels are: `cls` and `txt` are the text of such a member, `json:FIELD` a field of a json member."""

    extension: str
    field: str = ""

    def read(self, data: bytes) -> str | None:
        """Return the label that a member holds; None: it has none.

        Raises:
            ValueError: it is not such a member.
        """
        if not self.field:
            return data.decode().strip() or None
        try:
            value = json.loads(data)
        except RecursionError:
            raise ValueError("its JSON is nested too deeply") from None
        for name in self.field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, (dict, list)):
            raise ValueError(f"{self.field} is no single value")
        label = None if value is None else str(value)
        encode_name(label or "")  # JSON can name halves of characters, which are no text
        return label


def parse_labels(text: str) -> LabelMember | None:
    """Return where labels are; None: nowhere.

    Raises:
        DataError: there are no such labels.
    """
    if text in ("cls", "txt"):
        return LabelMember(text)
    if text.startswith(LABEL_FIELD) and len(text) > len(LABEL_FIELD):
        return LabelMember("json", text[len(LABEL_FIELD) :])
    if text == "none":
        return None
    raise DataError(f"--labels must be none, cls, txt or json:FIELD, such as json:style, but got {text!r}")


@dataclass(frozen=True)
class Member:
    """A file in a tar."""

    name: str
    start: int  # its first header
    offset: int  # its content
    size: int

    @property
    def key(self) -> str:
        """What WebDataset takes for the key: all up to the first dot of the last part."""
        folder, slash, base = self.name.rpartition("/")
        return f"{folder}{slash}{base.partition('.')[0]}"

    @property
    def extension(self) -> str:
        """What follows the key and its dot, in small letters."""
        return self.name[len(self.key) + 1 :].lower()

    @property
    def stem(self) -> str:
        """All up to the last dot."""
        return self.name.rpartition(".")[0]

    @property
    def is_picture(self) -> bool:
        """Whether its name is one of a picture."""
        return self.extension.rpartition(".")[2] in PICTURES


@dataclass(frozen=True)
class TarSample:
    """A picture in a tar, and the member that has its label."""

    picture: Member
    label: Member | None


def read_members(file: BinaryIO) -> Iterator[Member | Excluded]:
    """Yield the files of a tar, in their order; at the end why the rest cannot be read, if that is so."""
    size, end = os.fstat(file.fileno()).st_size, 0
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape", tarinfo=TarHeader) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all members, and memory would grow
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"{member.name!r} ends behind the end of the tar")
                end = member.offset_data + member.size
                if member.isreg() and not member.issparse():
                    yield Member(member.name, member.offset, member.offset_data, member.size)
            if archive.offset < size and any(os.pread(file.fileno(), tarfile.BLOCKSIZE, archive.offset)):
                raise tarfile.ReadError("what follows is no member")
    except TAR_ERRORS as error:
        yield Excluded("damaged", f"from byte {end} on: {error}")


def read_samples(file: BinaryIO, labels: LabelMember | None, member: str | None) -> Iterator[TarSample]:
    """Yield the pictures of a tar with their labels, in the order of the tar.

    Args:
        file: the tar.
        labels: where they are.
        member: the extension of the pictures that are taken; None: all of PICTURES.

    Raises:
        Excluded: it is no tar, or damaged from some byte on.
    """
    for _, group in groupby(read_members(file), key=lambda one: one.key if isinstance(one, Member) else one):
        members = []
        for one in group:
            if isinstance(one, Excluded):
                raise one
            members.append(one)
        of_label = {one.stem: one for one in members if labels and one.name.lower().endswith(f".{labels.extension}")}
        for one in members:
            if one.extension == member if member else one.is_picture:
                yield TarSample(one, of_label.get(one.stem) or of_label.get(one.key))
