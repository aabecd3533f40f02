"""Check that the directory of a zip lists everything in the file.

A zip is read by the directory at its end. Members that the directory does not list would be left out without a word, so
such a zip is refused.
"""

from __future__ import annotations

import os
import shlex
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from shards.dataset.index import DataError
from shards.sources.archive import CHUNK, skip_zeros

LOCAL_MAGIC, END_MAGIC, LOCATOR_MAGIC = b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x07"
LOCAL = struct.Struct("<4sHHH16xHH")  # signature, version, flags, method … length of the name, of the extra field
END = struct.Struct("<4s4H2LH")  # signature, disk, disk of directory, members here, members, size, offset, comment
# A large zip (zip64) has its counts in a record before the locator, which is before the end record.
LOCATOR_SIZE, ZIP64_MEMBERS = 20, struct.Struct("<32xQ16x")
MAX_COMMENT = MAX_UINT16 = 0xFFFF
UTF_8 = 0x800  # a bit of a member's flags
MAX_VERSION, MAX_METHOD = 100, 99  # of the format (6.3 is written as 63), and of compression; none is above these


def check_directory(path: Path, file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Check that the directory lists all members, and that nothing else is in the file.

    Raises:
        DataError: the message says what is wrong, where, and what to do.
    """
    size, copy = os.fstat(file.fileno()).st_size, shlex.quote(str(path))
    first = max(size - END.size - MAX_COMMENT, 0)
    place = first + os.pread(file.fileno(), size - first, first).rfind(END_MAGIC)
    _, disk, _, _, stated, _, directory, comment = END.unpack(os.pread(file.fileno(), END.size, place))
    if 0 < disk < MAX_UINT16:
        raise DataError(
            f"{path} is the last of {disk + 1} parts of a split archive: join them with: zip -s 0 {copy} --out NEW.zip"
        )
    listed = archive.infolist()
    # Modulo, because programs that do not know zip64 let the 16-bit count overflow.
    if (len(listed) - stated_members(file, place, stated)) % (MAX_UINT16 + 1):
        raise DataError(
            f"{path} is damaged: its end tells of {stated} members, its directory lists {len(listed)}: get it again"
        )
    hidden = unlisted_member(file, listed, archive.start_dir)
    if hidden is not None and hidden < (behind := archive.start_dir - directory):
        raise DataError(
            f"{path} is several zips behind one another, and the directory of the last one is the only one to be read: "
            f"take them apart with: head -c {behind} {copy} > FIRST.zip; tail -c +{behind + 1} {copy} > SECOND.zip and "
            "unpack both into one folder"
        )
    if hidden is not None:
        raise DataError(
            f"{path} has a member at byte {hidden} that its directory does not list, and that would be left out: make "
            f"the zip again, or unpack what it lists with: python -m zipfile -e {copy} FOLDER"
        )
    end = place + END.size + comment
    if skip_zeros(file, end) is not None:
        raise DataError(
            f"{path} goes on behind its end, at byte {end}, and that would be left out: if it is of no use, cut it off "
            f"with: head -c {end} {copy} > NEW.zip"
        )


def stated_members(file: BinaryIO, place: int, stated: int) -> int:
    """Return the number of members that the zip states: in its end record at `place`, or in its zip64 record."""
    locator = place - LOCATOR_SIZE
    if stated < MAX_UINT16 or os.pread(file.fileno(), 4, locator) != LOCATOR_MAGIC:
        return stated
    record = os.pread(file.fileno(), ZIP64_MEMBERS.size, locator - ZIP64_MEMBERS.size)
    return int(ZIP64_MEMBERS.unpack(record)[0])


def unlisted_member(file: BinaryIO, listed: Iterable[zipfile.ZipInfo], end: int) -> int | None:
    """Return the place of the first member that the directory, which begins at `end`, does not list; None: none.

    The file is read only where a gap between two listed members has room for the header of another one.
    """
    covered, widest = 0, None  # where the bytes of listed members end so far, and the member that ends there
    for member in [*sorted(listed, key=lambda member: member.header_offset), None]:
        start = end if member is None else member.header_offset
        if start - covered > LOCAL.size:
            exactly = covered if widest is None else content_start(file, widest) + widest.compress_size
            found = find_member(file, exactly, start)
            if found is not None:
                return found
        if member is not None and (reached := minimal_end(member)) >= covered:
            covered, widest = reached, member
    return None


def minimal_end(member: zipfile.ZipInfo) -> int:
    """Return where a member ends if it has no extra field; its length may differ from that in the directory."""
    name = member.orig_filename.encode("utf-8" if member.flag_bits & UTF_8 else "cp437")
    return member.header_offset + LOCAL.size + len(name) + member.compress_size


def content_start(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Return where a member's compressed content begins."""
    *_, name, extra = LOCAL.unpack(os.pread(file.fileno(), LOCAL.size, member.header_offset))
    return member.header_offset + LOCAL.size + int(name) + int(extra)


def find_member(file: BinaryIO, start: int, stop: int) -> int | None:
    """Return the place of the first header of a member between two places; None: there is none.

    The magic number alone is not enough: a self-extracting zip begins with a program that contains it.
    """
    while start < stop:
        data = os.pread(file.fileno(), min(CHUNK, stop - start), start)
        if not data:  # the directory may tell of a member at any place, and the file ends here
            return None
        place = data.find(LOCAL_MAGIC)
        while place >= 0:
            if is_local_header(os.pread(file.fileno(), LOCAL.size, start + place), stop - start - place):
                return start + place
            place = data.find(LOCAL_MAGIC, place + 1)
        start += max(len(data) - len(LOCAL_MAGIC) + 1, 1)
    return None


def is_local_header(data: bytes, room: int) -> bool:
    """Return whether bytes are the header of a member whose name and extra field fit into `room` bytes."""
    if len(data) < LOCAL.size:
        return False
    _, version, _, method, name, extra = LOCAL.unpack(data)
    return bool(version & 0xFF <= MAX_VERSION and method <= MAX_METHOD and 0 < name <= room - LOCAL.size - extra)
