"""Pictures in a folder and the folders below it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shards.exclusion import Excluded
from shards.sources.source_entry import SourceEntry

# O_NONBLOCK: a file that has become a pipe since it was listed would be waited for.
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class FolderSource:
    """All files below a folder.

    Args:
        path: of the folder.
        follow_links: also take files outside of the folder to which links lead.
    """

    requests = 1

    def __init__(self, path: Path, follow_links: bool = False) -> None:
        self.follow_links = follow_links
        self.root = os.fsencode(os.path.realpath(path))
        self.notes: list[str] = []

    def scan(self) -> Iterator[SourceEntry]:
        """Yield all files; only the names of folders still to visit are in memory."""
        folders = [b""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(os.path.join(self.root, folder)) as entries:
                    for entry in entries:
                        name = os.path.join(folder, entry.name)
                        file = self.entry_of(name, entry)
                        if file is None:
                            folders.append(name)
                        else:
                            yield file
            except OSError as error:
                yield SourceEntry(folder or b".", reason="unreadable", detail=f"folder: {error.strerror}")

    def entry_of(self, name: bytes, entry: os.DirEntry[bytes]) -> SourceEntry | None:
        """Return the entry of a file; None: it is a folder, which is to be visited."""
        try:
            if entry.name.startswith(b"."):
                return SourceEntry(
                    name, reason="hidden", detail="folder" if entry.is_dir(follow_symlinks=False) else "file"
                )
            if entry.is_symlink():
                return self.follow(name)
            if entry.is_dir(follow_symlinks=False):
                return None
            return regular_file_entry(name, entry.stat(follow_symlinks=False))
        except OSError as error:
            return SourceEntry(name, reason="unreadable", detail=error.strerror or str(error))

    def follow(self, name: bytes) -> SourceEntry:
        """Return the entry of a link: inside the source a file is taken, outside with follow_links, a folder never."""
        path = os.path.join(self.root, name)
        link = os.fsdecode(os.readlink(path))
        try:
            target = os.path.realpath(path, strict=True)
        except OSError as error:
            reason = "symlink_loop" if error.errno == errno.ELOOP else "dangling_link"
            return SourceEntry(name, reason=reason, detail=f"to {link!r}")
        is_folder = os.path.isdir(target)
        outside = os.path.commonpath([target, self.root]) != self.root
        if outside and (is_folder or not self.follow_links):
            copied = is_folder and os.path.commonpath([target, self.root]) != target  # not one around the source
            remedy = "; it is a folder: copy it into the source" if copied else ""
            return SourceEntry(name, reason="outside_source", detail=f"to {link!r}{remedy}")
        if is_folder:
            above = os.path.commonpath([target, path]) == target
            return SourceEntry(name, reason="symlink_loop" if above else "linked_folder", detail=f"to {link!r}")
        return regular_file_entry(name, os.stat(target))

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Return the content of one file.

        Raises:
            Excluded: it cannot be read, is no regular file any more, or is longer than `max_bytes`.
        """
        try:
            descriptor = os.open(os.path.join(self.root, name), OPEN_FLAGS)
            with open(descriptor, "rb", buffering=0) as file:
                # Of what was opened, not of the name: that may be another file by now.
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise Excluded("special_file", "not a file any more")
                if status.st_size > max_bytes:
                    raise Excluded("too_many_bytes", f"{status.st_size} bytes")
                return file.readall()
        except OSError as error:
            raise Excluded("unreadable", error.strerror or str(error)) from error

    def size_of(self, place: str) -> int:
        """Return the bytes that are read for the file at a place."""
        return int(place.partition(":")[0])


def regular_file_entry(name: bytes, status: os.stat_result) -> SourceEntry:
    """Return the entry of a regular file with its size and time; pipes, sockets and devices are excluded."""
    if not stat.S_ISREG(status.st_mode):
        return SourceEntry(name, reason="special_file", detail=stat.filemode(status.st_mode))
    return SourceEntry(name, f"{status.st_size}:{status.st_mtime_ns}")
