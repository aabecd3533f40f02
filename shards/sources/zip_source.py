"""Pictures in a zip."""

from __future__ import annotations

import bz2
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from shards.dataset.index import DataError
from shards.exclusion import Excluded
from shards.sources.archive import ArchiveSource, checked_entry
from shards.sources.source_entry import SourceEntry, encode_name
from shards.sources.zip_directory import LOCAL, LOCAL_MAGIC, check_directory

MAX_DICTIONARY = 128 << 20  # bytes; 7-Zip and xz use 64 MiB at most unless told otherwise
BZIP2_EXTRA = 1 << 16  # bytes: what cannot be packed becomes longer by less than this and its own length
ENCRYPTED = 0x1  # a bit of a member's flags
# Systems in whose file names a backslash cannot be a character: FAT, HPFS, NTFS (two numbers), VFAT.
WINDOWS_SYSTEMS = {0, 6, 10, 11, 14}
READ_ERRORS = (OSError, EOFError, ValueError, OverflowError, NotImplementedError, struct.error, zipfile.BadZipFile,
               zlib.error, lzma.LZMAError)  # fmt: skip


class ZipSource(ArchiveSource):
    """The members of a zip; a place is "offset of the header:method:compressed size:size:CRC".

    The place holds what the directory says, so that a worker reads a member without reading the directory again.
    """

    def scan(self) -> Iterator[SourceEntry]:
        """Yield all members; the directory of the zip, about 0.6 kB a member, is in memory meanwhile.

        Raises:
            DataError: the directory is damaged, or does not list everything that is in the file.
        """
        try:
            with self.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                check_directory(self.path, file, archive)
                for member in archive.infolist():
                    name = member_name(member)
                    if member.file_size or not name.endswith(b"/"):  # else it is a folder
                        yield self.entry_of(name, member)
        except zipfile.BadZipFile as error:
            raise DataError(
                f"{self.path} is damaged ({error}), cut short, a part of a split archive, or has more behind its "
                "end: get it again, whole"
            ) from error
        except (OSError, ValueError, OverflowError, NotImplementedError, struct.error) as error:
            raise DataError(f"{self.path} is damaged ({error}): get it again") from error

    def entry_of(self, name: bytes, member: zipfile.ZipInfo) -> SourceEntry:
        """Return the entry of a member."""
        numbers = (member.header_offset, member.compress_type, member.compress_size, member.file_size, member.CRC)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.flag_bits & ENCRYPTED:
            return SourceEntry(name, reason="encrypted", detail="zip member")
        if kind == stat.S_IFLNK:
            return SourceEntry(name, reason="link_in_archive", detail="symbolic link")
        if kind not in (0, stat.S_IFREG):
            return SourceEntry(name, reason="special_file", detail=stat.filemode(kind))
        return checked_entry(name, ":".join(map(str, numbers)))

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Return the unpacked content of one member, checked against its CRC.

        Raises:
            Excluded: it is longer than `max_bytes`, damaged, or compressed by a method that Python does not know.
        """
        offset, method, packed, size, crc = map(int, place.split(":"))
        if size > max_bytes:
            raise Excluded("too_many_bytes", f"{size} bytes")
        info = zipfile.ZipInfo(filename="member")
        info.compress_type, info.compress_size, info.file_size, info.CRC = method, packed, size, crc
        file = self.open_archive()
        try:
            file.seek(offset)
            signature, *_, name_length, extra_length = LOCAL.unpack(file.read(LOCAL.size))
            if signature != LOCAL_MAGIC:
                raise Excluded("unreadable", "no zip member at its offset")
            file.seek(name_length + extra_length, os.SEEK_CUR)
            data = unpack(file, info)
        except NotImplementedError as error:  # such as Deflate64, which Windows uses for large files
            how = zipfile.compressor_names.get(method, "?")  # type: ignore[attr-defined]  # not in typeshed
            what = f"packed by method {method} ({how}), which cannot be read"
            raise Excluded("unreadable", f"zip member: {what}: unpack the zip, and build from the folder") from error
        except READ_ERRORS as error:
            raise Excluded("unreadable", f"zip member: {error}") from error
        if len(data) != size:
            raise Excluded("truncated", f"zip member: {len(data)} of {size} bytes")
        return data

    def size_of(self, place: str) -> int:
        """Return the bytes that are read for the file at a place."""
        return int(place.split(":")[2])


def unpack(file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    """Return the content of a member, in memory for its stated size, whatever a zip bomb would unpack to.

    Raises:
        READ_ERRORS: it is damaged.
    """
    if info.compress_type == zipfile.ZIP_LZMA:
        # Version and length of the properties, these: a byte, and the size of the dictionary, which is allocated.
        header = os.pread(file.fileno(), 9, file.tell())
        if (size := int.from_bytes(header[5:], "little")) > MAX_DICTIONARY:
            raise zipfile.BadZipFile(f"LZMA with a dictionary of {size} bytes")
    if info.compress_type != zipfile.ZIP_BZIP2:
        # With the size: without one, up to 2 GiB are unpacked before what is too much is cut off.
        return zipfile.ZipExtFile(file, "r", info).read(info.file_size)
    # Even so zipfile unpacks 4 kB at once, and to these bzip2 can pack gigabytes.
    packed = file.read(min(info.compress_size, 2 * info.file_size + BZIP2_EXTRA))
    data = bz2.BZ2Decompressor().decompress(packed, info.file_size)
    if zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile("Bad CRC-32")
    return data


def member_name(member: zipfile.ZipInfo) -> bytes:
    """Return a member's name with slashes between its folders.

    Some programs on Windows write backslashes, against the format (.NET before 4.6.1, so PowerShell 5). A name that has
    slashes too keeps its backslashes, as in unzip and libarchive: they may be halves of characters in an old encoding.
    """
    name = encode_name(member.orig_filename)
    return name if member.create_system not in WINDOWS_SYSTEMS or b"/" in name else name.replace(b"\\", b"/")
