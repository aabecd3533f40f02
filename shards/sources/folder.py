"""Pictures in a folder and the folders below it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shards.images.exclusion import Excluded
from shards.sources.source_entry import Found

OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe that took a file's place since must not make us wait


class FolderSource:
    """All files below a folder.

    Args:
        path: of the folder.
        follow_links: whether files outside of it are taken where links lead to them.
    """

    def __init__(self, path: Path, follow_links: bool = False) -> None:
        self.follow_links = follow_links
        self.root = os.fsencode(os.path.realpath(path))
        self.notes: list[str] = []

    def scan(self) -> Iterator[Found]:
        """Yield all files; the folders still to visit are the only ones in memory."""
        folders = [b""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(os.path.join(self.root, folder)) as entries:
                    for entry in entries:
                        name = os.path.join(folder, entry.name)
                        found = self.look_at(name, entry)
                        if found is None:
                            folders.append(name)
                        else:
                            yield found
            except OSError as error:
                yield Found(folder or b".", reason="unreadable", detail=f"folder: {error.strerror}")

    def look_at(self, name: bytes, entry: os.DirEntry[bytes]) -> Found | None:
        """Return what an entry is; None for a folder to visit."""
        try:
            if entry.name.startswith(b"."):
                return Found(name, reason="hidden", detail="folder" if entry.is_dir(follow_symlinks=False) else "file")
            if entry.is_symlink():
                return self.follow(name)
            if entry.is_dir(follow_symlinks=False):
                return None
            return regular(name, entry.stat(follow_symlinks=False))
        except OSError as error:
            return Found(name, reason="unreadable", detail=error.strerror or str(error))

    def follow(self, name: bytes) -> Found:
        """Return what a link leads to: a file of the source is taken, one outside if it may be, a folder never."""
        path = os.path.join(self.root, name)
        link = os.fsdecode(os.readlink(path))
        try:
            target = os.path.realpath(path, strict=True)
        except OSError as error:
            reason = "symlink_loop" if error.errno == errno.ELOOP else "dangling_link"
            return Found(name, reason=reason, detail=f"to {link!r}")
        is_folder = os.path.isdir(target)
        outside = os.path.commonpath([target, self.root]) != self.root
        if outside and (is_folder or not self.follow_links):
            copied = is_folder and os.path.commonpath([target, self.root]) != target  # not one around the source
            remedy = "; it is a folder: copy it into the source" if copied else ""
            return Found(name, reason="outside_source", detail=f"to {link!r}{remedy}")
        if is_folder:
            above = os.path.commonpath([target, path]) == target
            return Found(name, reason="symlink_loop" if above else "linked_folder", detail=f"to {link!r}")
        # Relative also from outside, so that links to one file share its side of the hold-out wherever all of it lies.
        return regular(name, os.stat(target), os.path.relpath(target, self.root))

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Return the content of one file."""
        try:
            descriptor = os.open(os.path.join(self.root, name), OPEN)
            with open(descriptor, "rb", buffering=0) as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise Excluded("special_file", "not a file any more")
                if status.st_size > max_bytes:
                    raise Excluded("too_many_bytes", f"{status.st_size} bytes")
                return file.readall()
        except OSError as error:
            raise Excluded("unreadable", error.strerror or str(error)) from error


def regular(name: bytes, status: os.stat_result, target: bytes | None = None) -> Found:
    """Return a file as it is now; anything else that can be opened is excluded."""
    if not stat.S_ISREG(status.st_mode):
        return Found(name, reason="special_file", detail=stat.filemode(status.st_mode))
    return Found(name, f"{status.st_size}:{status.st_mtime_ns}", target)
