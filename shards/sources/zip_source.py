"""Pictures in a zip."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator

from shards.dataset.index import DataError
from shards.images.exclusion import Excluded
from shards.sources.archive import ArchiveSource, checked
from shards.sources.source_entry import Found, to_bytes
from shards.sources.zip_directory import LOCAL, LOCAL_MAGIC, check_directory

ENCRYPTED = 0x1  # a bit of a member's flags
WINDOWS = {0, 6, 10, 11, 14}  # whose file names: FAT, HPFS, NTFS (two numbers), VFAT; a backslash is no part of them
DAMAGE = (OSError, EOFError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error)


class ZipSource(ArchiveSource):
    """The members of a zip; a place is "offset:method:packed size:size:CRC"."""

    def scan(self) -> Iterator[Found]:
        """Yield all members; the zip's own directory, some 0.6 kB a member, is in memory meanwhile.

        Raises:
            DataError: the directory is damaged, or does not list everything that is in the file.
        """
        try:
            with self.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                check_directory(self.path, file, archive)
                for member in archive.infolist():
                    name = name_of(member)
                    if member.file_size or not name.endswith(b"/"):  # else a folder
                        yield self.look_at(name, member)
        except zipfile.BadZipFile as error:
            raise DataError(
                f"{self.path} is damaged ({error}), cut short, a part of a split archive, or has more behind its "
                "end: get it again, whole"
            ) from error
        except (OSError, ValueError, NotImplementedError, struct.error) as error:
            raise DataError(f"{self.path} is damaged ({error}): get it again") from error

    def look_at(self, name: bytes, member: zipfile.ZipInfo) -> Found:
        """Return what a member is."""
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
            signature, *_, name_length, extra_length = LOCAL.unpack(file.read(LOCAL.size))
            if signature != LOCAL_MAGIC:
                raise Excluded("unreadable", "no zip member at its offset")
            file.seek(name_length + extra_length, os.SEEK_CUR)
            data = zipfile.ZipExtFile(file, "r", info).read()  # no more than `size`
        except NotImplementedError as error:  # such as Deflate64, with which Windows packs what is large
            how = zipfile.compressor_names.get(method, "?")  # type: ignore[attr-defined]  # not in typeshed
            what = f"packed by method {method} ({how}), which cannot be read"
            raise Excluded("unreadable", f"zip member: {what}: unpack the zip, and build from the folder") from error
        except DAMAGE as error:
            raise Excluded("unreadable", f"zip member: {error}") from error
        if len(data) != size:
            raise Excluded("truncated", f"zip member: {len(data)} of {size} bytes")
        return data


def name_of(member: zipfile.ZipInfo) -> bytes:
    """Return a member's name with slashes between its folders.

    Some programs on Windows write backslashes, against the format (.NET before 4.6.1, so PowerShell 5). A name that has
    slashes too keeps its backslashes, as in unzip and libarchive: they may be halves of characters in an old encoding.
    """
    name = to_bytes(member.orig_filename)
    return name if member.create_system not in WINDOWS or b"/" in name else name.replace(b"\\", b"/")
