"""A local folder as a storage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from shards.atomic_files import fsync, write_atomically
from shards.storage.backend import ObjectInfo

TEMPORARY = ".tmp"  # the suffix of files that are being written; such names begin with a dot


class LocalFiles:
    """A folder.

    Args:
        folder: its path; it is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        return (self.folder / name).read_bytes()

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Return bytes of a file; fewer, where it ends before."""
        with (self.folder / name).open("rb") as file:
            return os.pread(file.fileno(), length, start)

    def head(self, name: str) -> ObjectInfo:
        """Return size and etag, which is of size and time."""
        found = (self.folder / name).stat()
        return ObjectInfo(name, found.st_size, f"{found.st_size:x}-{found.st_mtime_ns:x}")

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the files whose names begin with a prefix, with those in folders below, by name."""
        above = self.folder / prefix.rpartition("/")[0]
        names = (file.relative_to(self.folder).as_posix() for file in above.rglob("*") if not file.is_dir())
        for name in sorted(names):
            if name.startswith(prefix) and not (name.endswith(TEMPORARY) and name.rpartition("/")[2][0] == "."):
                yield self.head(name)

    def write(self, name: str, content: bytes | Path) -> None:
        """Write a file: it appears whole or not at all, and survives a power failure."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            write_atomically(path, content)
            return
        temporary = path.with_name(f".{path.name}.{uuid4().hex}{TEMPORARY}")
        try:
            shutil.copyfile(content, temporary)
            fsync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync(path.parent)

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there counts as deleted."""
        (self.folder / name).unlink(missing_ok=True)
