"""Whether a zip's directory tells everything. A zip is read by the directory at its end, and each program has its own
idea of what to do with members that are not in it; here they would be left out without a word, so it is refused."""

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
LOCATOR_SIZE, MEMBERS_64 = 20, struct.Struct("<32xQ16x")  # of a large zip, which has its counts in a record before it
MOST_COMMENT = MANY = 0xFFFF
UTF_8 = 0x800  # a bit of a member's flags
NEWEST, LAST_METHOD = 100, 99  # no version of the format (6.3 is written as 63) or packing method is above these


def check_directory(path: Path, file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Check that all of a zip is in its directory.

    Raises:
        DataError: something is not: the message says what, where, and what to do.
    """
    size, copy = os.fstat(file.fileno()).st_size, shlex.quote(str(path))
    first = max(size - END.size - MOST_COMMENT, 0)
    place = first + os.pread(file.fileno(), size - first, first).rfind(END_MAGIC)
    _, disk, _, _, stated, _, directory, comment = END.unpack(os.pread(file.fileno(), END.size, place))
    if 0 < disk < MANY:
        raise DataError(
            f"{path} is the last of {disk + 1} parts of a split archive: join them with: zip -s 0 {copy} --out NEW.zip"
        )
    listed = archive.infolist()
    if (len(listed) - large_count(file, place, stated)) % (MANY + 1):  # programs without the large format count so far
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


def large_count(file: BinaryIO, place: int, stated: int) -> int:
    """Return the number of members that a zip states of itself: in its end record at `place`, or in one before that."""
    locator = place - LOCATOR_SIZE
    if stated < MANY or os.pread(file.fileno(), 4, locator) != LOCATOR_MAGIC:
        return stated
    record = os.pread(file.fileno(), MEMBERS_64.size, locator - MEMBERS_64.size)
    return int(MEMBERS_64.unpack(record)[0])


def unlisted_member(file: BinaryIO, listed: Iterable[zipfile.ZipInfo], end: int) -> int | None:
    """Return where the first member lies that the directory, which begins at `end`, does not list.

    Only where more lies between two members than the header of a third is anything read.
    """
    covered, widest = 0, None  # the bytes so far that belong to members, and the one that reaches there
    for member in [*sorted(listed, key=lambda member: member.header_offset), None]:
        start = end if member is None else member.header_offset
        if start - covered > LOCAL.size:
            exactly = covered if widest is None else content_of(file, widest) + widest.compress_size
            found = find_member(file, exactly, start)
            if found is not None:
                return found
        if member is not None and (reached := least_end(member)) >= covered:
            covered, widest = reached, member
    return None


def least_end(member: zipfile.ZipInfo) -> int:
    """Return where a member ends, but for its extra field, which may differ from that in the directory."""
    name = member.orig_filename.encode("utf-8" if member.flag_bits & UTF_8 else "cp437")
    return member.header_offset + LOCAL.size + len(name) + member.compress_size


def content_of(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Return where a member's packed content begins."""
    *_, name, extra = LOCAL.unpack(os.pread(file.fileno(), LOCAL.size, member.header_offset))
    return member.header_offset + LOCAL.size + int(name) + int(extra)


def find_member(file: BinaryIO, start: int, stop: int) -> int | None:
    """Return where between two bytes the first header of a member lies; a program that unpacks may hold its magic."""
    while start < stop:
        data = os.pread(file.fileno(), min(CHUNK, stop - start), start)
        place = data.find(LOCAL_MAGIC)
        while place >= 0:
            if is_header(os.pread(file.fileno(), LOCAL.size, start + place), stop - start - place):
                return start + place
            place = data.find(LOCAL_MAGIC, place + 1)
        start += max(len(data) - len(LOCAL_MAGIC) + 1, 1)
    return None


def is_header(data: bytes, room: int) -> bool:
    """Return whether some bytes are a member's header with its name, no longer than the room that there is."""
    if len(data) < LOCAL.size:
        return False
    _, version, _, method, name, extra = LOCAL.unpack(data)
    return bool(version & 0xFF <= NEWEST and method <= LAST_METHOD and 0 < name <= room - LOCAL.size - extra)
