"""Pictures in a zip or a tar. Members are read into memory, one at a time; nothing is ever unpacked."""

from __future__ import annotations

import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shards.exclusion import Excluded
from shards.found import Found, to_bytes
from shards.index import DataError

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z"}
ENCRYPTED = 0x1  # a bit of a zip member's flags
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature … length of the name, length of the extra field


def archive_kind(path: Path) -> str:
    """Return "zip" or "tar".

    Raises:
        DataError: it is neither, or a tar that is compressed as a whole and cannot be read here and there.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if start.startswith(b"PK"):
        return "zip"
    for magic, name in COMPRESSED.items():
        if start.startswith(magic):
            raise DataError(
                f"{path} is compressed as a whole ({name}), so its members cannot be read one by one: unpack it"
            )
    if tarfile.is_tarfile(path):
        return "tar"
    raise DataError(f"{path} is not an archive that can be read: SRC is a folder of pictures, a zip or a tar")


class ArchiveSource:
    """A file that is opened in each process that reads from it."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.file: BinaryIO | None = None

    def opened(self) -> BinaryIO:
        """Return the open archive."""
        if self.file is None:
            self.file = self.path.open("rb")
        return self.file


class ZipSource(ArchiveSource):
    """The members of a zip; a place is "offset:method:packed size:size:CRC"."""

    def scan(self) -> Iterator[Found]:
        """Yield all members; the zip's own directory, some 0.6 kB a member, is in memory meanwhile."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                for member in archive.infolist():
                    if not member.is_dir():
                        yield self.look_at(member)
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise DataError(f"{self.path} is damaged ({error}): get it again") from error

    def look_at(self, member: zipfile.ZipInfo) -> Found:
        """Return what a member is."""
        name = to_bytes(member.orig_filename)
        numbers = (member.header_offset, member.compress_type, member.compress_size, member.file_size, member.CRC)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.flag_bits & ENCRYPTED:
            return Found(name, reason="encrypted", detail="zip member")
        if kind == stat.S_IFLNK:
            return Found(name, reason="link_in_archive", detail="symbolic link")
        if kind not in (0, stat.S_IFREG):
            return Found(name, reason="special_file", detail=stat.filemode(kind))
        return checked(name, ":".join(map(str, numbers)))

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Return the unpacked content of one member, checked against its CRC."""
        offset, method, packed, size, crc = map(int, place.split(":"))
        if size > max_bytes:
            raise Excluded("too_many_bytes", f"{size} bytes")
        info = zipfile.ZipInfo(filename="member")
        info.compress_type, info.compress_size, info.file_size, info.CRC = method, packed, size, crc
        file = self.opened()
        try:
            file.seek(offset)
            signature, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            if signature != b"PK\x03\x04":
                raise Excluded("unreadable", "no zip member at its offset")
            file.seek(name_length + extra_length, os.SEEK_CUR)
            data = zipfile.ZipExtFile(file, "r", info).read()  # no more than `size`
        except (OSError, EOFError, ValueError, NotImplementedError, struct.error) as error:
            raise Excluded("unreadable", f"zip member: {error}") from error
        except (zipfile.BadZipFile, zlib.error) as error:
            raise Excluded("unreadable", f"zip member: {error}") from error
        if len(data) != size:
            raise Excluded("truncated", f"zip member: {len(data)} of {size} bytes")
        return data


class TarSource(ArchiveSource):
    """The members of a tar; a place is "offset:size:time"."""

    def scan(self) -> Iterator[Found]:
        """Yield all members; one is in memory at a time.

        Raises:
            DataError: the tar ends too early, or a header is damaged: all after it would be missing.
        """
        try:
            with tarfile.open(self.path, "r:", errors="surrogateescape") as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                    if not member.isdir():
                        yield self.look_at(member)
                end = archive.offset
            with self.path.open("rb") as file:
                after = os.pread(file.fileno(), tarfile.BLOCKSIZE, end)
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{self.path} is damaged ({error}): get it again") from error
        if any(after):
            raise DataError(f"{self.path} is damaged at byte {end}, and what follows cannot be found: get it again")

    def look_at(self, member: tarfile.TarInfo) -> Found:
        """Return what a member is."""
        name = to_bytes(member.name)
        if member.issym() or member.islnk():
            return Found(name, reason="link_in_archive", detail=f"to {member.linkname!r}")
        if not member.isreg() or member.issparse():
            return Found(name, reason="special_file", detail=f"tar member of type {member.type!r}")
        return checked(name, f"{member.offset_data}:{member.size}:{member.mtime}")

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Return the content of one member."""
        offset, size = map(int, place.split(":")[:2])
        if size > max_bytes:
            raise Excluded("too_many_bytes", f"{size} bytes")
        data = os.pread(self.opened().fileno(), size, offset)
        if len(data) != size:
            raise Excluded("truncated", f"tar member: {len(data)} of {size} bytes")
        return data


def checked(name: bytes, place: str) -> Found:
    """Return a member under its plain name, if that stays inside the archive and is not hidden."""
    parts = re.split(rb"[/\\]", name)
    if name.startswith((b"/", b"\\")) or b".." in parts or re.match(rb"[A-Za-z]:", name) or b"\0" in name:
        return Found(name, reason="escapes_archive", detail="its name leads out of the archive")
    plain = b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))
    if any(part.startswith(b".") for part in plain.split(b"/")):
        return Found(plain, reason="hidden", detail="member")
    return Found(plain, place)
