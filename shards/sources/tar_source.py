"""Pictures in a tar, or in several that are concatenated in one file."""

from __future__ import annotations

import os
import shlex
import tarfile
from collections.abc import Generator, Iterator
from typing import BinaryIO

from shards.dataset.index import DataError
from shards.exclusion import Excluded
from shards.sources.archive import ArchiveSource, checked_entry, is_tar, skip_zeros
from shards.sources.source_entry import SourceEntry, encode_name
from shards.sources.tar_headers import TAR_ERRORS, TarHeader

BLOCK = tarfile.BLOCKSIZE


class TarSource(ArchiveSource):
    """The members of a tar; a place is "offset of the content:size:time"."""

    def scan(self) -> Iterator[SourceEntry]:
        """Yield all members, also those behind an end mark (`cat a.tar b.tar`); one is in memory at a time.

        Raises:
            DataError: the tar ends too early, a header is damaged, or something that is no member lies behind the end:
                its pictures would be missing without a word.
        """
        self.notes = []
        try:
            with self.path.open("rb") as file:
                start: int | None = 0
                while start is not None:
                    end = yield from self.members(file, start)
                    following = self.next_start(file, end)
                    if following == start:  # where tarfile has found no member just now, it would find none for ever
                        raise tarfile.ReadError(f"the header at byte {start} belongs to no member")
                    start = following
        except TAR_ERRORS as error:
            raise DataError(f"{self.path} is damaged ({error}): get it again") from error

    def members(self, file: BinaryIO, start: int) -> Generator[SourceEntry, None, int]:
        """Yield the members from the header at `start` on, and return the place where no header follows."""
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape", tarinfo=TarHeader) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all members, and memory would grow
                if not member.isdir():
                    yield self.entry_of(member)
            return archive.offset

    def next_start(self, file: BinaryIO, end: int) -> int | None:
        """Return the place of the next member behind an end mark; None: only zeros follow, or nothing.

        Raises:
            DataError: something else follows.
        """
        if not os.pread(file.fileno(), 1, end):
            self.notes.append(f"{self.path} has no end mark: what was cut off behind its last member cannot be told")
            return None
        other = skip_zeros(file, end)
        if other is None:
            return None
        place = other // BLOCK * BLOCK
        if is_tar(os.pread(file.fileno(), BLOCK, place)):
            return place
        if place == end:
            raise DataError(f"{self.path} is damaged at byte {end}, and what follows cannot be found: get it again")
        raise DataError(
            f"{self.path} goes on behind its end, at byte {place}, with something that is no tar member, and would be "
            f"left out: if it is of no use, cut it off with: head -c {place} {shlex.quote(str(self.path))} > NEW.tar"
        )

    def entry_of(self, member: tarfile.TarInfo) -> SourceEntry:
        """Return the entry of a member."""
        name = encode_name(member.name)
        if member.issym() or member.islnk():
            return SourceEntry(name, reason="link_in_archive", detail=f"to {member.linkname!r}")
        if not member.isreg() or member.issparse():
            return SourceEntry(name, reason="special_file", detail=f"tar member of type {member.type!r}")
        return checked_entry(name, f"{member.offset_data}:{member.size}:{member.mtime}")

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Return the content of one member.

        Raises:
            Excluded: it is longer than `max_bytes`, or the tar has become shorter.
        """
        offset, size = map(int, place.split(":")[:2])
        if size > max_bytes:
            raise Excluded("too_many_bytes", f"{size} bytes")
        data = os.pread(self.open_archive().fileno(), size, offset)
        if len(data) != size:
            raise Excluded("truncated", f"tar member: {len(data)} of {size} bytes")
        return data

    def size_of(self, place: str) -> int:
        """Return the bytes that are read for the file at a place."""
        return int(place.split(":")[1])
