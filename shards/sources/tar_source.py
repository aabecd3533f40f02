"""Pictures in a tar, or in several that lie behind one another in one file."""

from __future__ import annotations

import os
import shlex
import tarfile
from collections.abc import Generator, Iterator
from typing import BinaryIO

from shards.dataset.index import DataError
from shards.images.exclusion import Excluded
from shards.sources.archive import ArchiveSource, checked, is_tar, skip_zeros
from shards.sources.source_entry import Found, to_bytes

BLOCK = tarfile.BLOCKSIZE


class TarSource(ArchiveSource):
    """The members of a tar; a place is "offset:size:time"."""

    def scan(self) -> Iterator[Found]:
        """Yield all members, those behind an end mark too (`cat a.tar b.tar`); one is in memory at a time.

        Raises:
            DataError: the tar ends too early, a header is damaged, or something else lies behind the end: it would be
                missing.
        """
        self.notes = []
        try:
            with self.path.open("rb") as file:
                start: int | None = 0
                while start is not None:
                    end = yield from self.members(file, start)
                    start = self.next_start(file, end)
        except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
            raise DataError(f"{self.path} is damaged ({error}): get it again") from error

    def members(self, file: BinaryIO, start: int) -> Generator[Found, None, int]:
        """Yield the members from a header on, and return where no other header follows."""
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                if member.size < 0:  # the next one would lie before it, for ever
                    raise tarfile.ReadError("a member of negative size")
                if not member.isdir():
                    yield self.look_at(member)
            return archive.offset

    def next_start(self, file: BinaryIO, end: int) -> int | None:
        """Return where the next member lies behind an end mark; None: there are only zeros, or nothing.

        Raises:
            DataError: there is something else.
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
