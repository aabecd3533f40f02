"""What zips and tars have in common. Members are read into memory, one at a time; nothing is unpacked to disk."""

from __future__ import annotations

import os
import re
import shlex
import tarfile
import zipfile
from pathlib import Path
from typing import BinaryIO

from shards.dataset.index import DataError
from shards.sources.source_entry import SourceEntry

# The beginning of a zip with members, of an empty one, and of the parts of a split one.
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"PK00PK\x03\x04")
COMPRESSED_MAGIC = {  # first bytes -> command that writes the uncompressed content to standard output
    b"\x1f\x8b": "gzip -dc",
    b"\x1f\x9d": "gzip -dc",
    b"BZh": "bzip2 -dc",
    b"\xfd7zXZ": "xz -dc",
    b"\x28\xb5\x2f\xfd": "zstd -dc",
    b"\x04\x22\x4d\x18": "lz4 -dc",
    b"LZIP": "lzip -dc",
}
OTHER_ARCHIVES = {b"7z\xbc\xaf": "7z", b"Rar!": "rar"}  # archives that only their own programs unpack
HEADER_BYTES = 512  # a tar's first header: enough to tell all kinds of archives apart
CHUNK = 1 << 20


def archive_kind(path: Path) -> str:
    """Return "zip" or "tar", by the content; names are often wrong.

    Raises:
        DataError: it is neither, or compressed as a whole, so that members cannot be read one by one.
    """
    try:
        with path.open("rb") as file:
            start = file.read(HEADER_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if is_tar(start):  # first: a tar starts with a name, and that may look like any of the others
        return "tar"
    if start.startswith(ZIP_MAGIC):
        return "zip"
    for magic, program in COMPRESSED_MAGIC.items():
        if start.startswith(magic):
            raise DataError(
                f"{path} is compressed as a whole ({program.split()[0]}), so its members cannot be read one by one: "
                f"if it is a tar, unpack it once with: {program} {shlex.quote(str(path))} > NEW.tar"
            )
    for magic, name in OTHER_ARCHIVES.items():
        if start.startswith(magic):
            raise DataError(f"{path} is a {name} archive, which cannot be read: unpack it, and build from the folder")
    if zipfile.is_zipfile(path):  # a self-extracting zip begins with a program
        return "zip"
    raise DataError(f"{path} is not an archive that can be read: SRC is a folder of pictures, a zip or a tar")


def is_tar(block: bytes) -> bool:
    """Return whether a block is the header of a tar member, or an end mark: a tar without members is one."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not in typeshed
        return True
    except (tarfile.TarError, ValueError):
        return False
    return True


class ArchiveSource:
    """Base class of zip and tar: the archive is opened once in each process that reads from it."""

    requests = 1

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.file: BinaryIO | None = None
        self.notes: list[str] = []

    def open_archive(self) -> BinaryIO:
        """Return the archive, opened when it is first needed."""
        if self.file is None:
            self.file = self.path.open("rb")
        return self.file


def skip_zeros(file: BinaryIO, place: int) -> int | None:
    """Return the place of the first byte from `place` on that is not zero; None: there is none."""
    while data := os.pread(file.fileno(), CHUNK, place):
        if rest := data.lstrip(b"\0"):
            return place + len(data) - len(rest)
        place += len(data)
    return None


def checked_entry(name: bytes, place: str) -> SourceEntry:
    """Return a member with its name normalized, or excluded if that leads out of the archive or is hidden."""
    # Both slashes: archives made on Windows have the other one.
    parts = re.split(rb"[/\\]", name)
    if name.startswith((b"/", b"\\")) or b".." in parts or re.match(rb"[A-Za-z]:", name) or b"\0" in name:
        return SourceEntry(name, reason="escapes_archive", detail="its name leads out of the archive")
    plain = b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))
    if not plain:
        return SourceEntry(name, reason="escapes_archive", detail="its name is that of the archive's own folder")
    if any(part.startswith(b".") for part in plain.split(b"/")):
        return SourceEntry(plain, reason="hidden", detail="member")
    return SourceEntry(plain, place)
