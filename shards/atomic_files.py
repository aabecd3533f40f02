"""Files that are complete or absent, whatever happens to the process or to the machine.

All writers here write under a temporary name and then rename: a rename is atomic, so a reader sees the old content or
all of the new one, never half of it. Which to use:

- `write_atomically(path, content)`: content in memory that must survive a power failure, such as a record of a run.
  Several processes on several nodes may write the same path; the last rename wins.
- `write_atomically(path, content, durable=False)`: the same without waiting for the disk, for what is easily made
  again, such as pictures: an fsync a file would cost more than the pictures.
- `write_chunks_atomically(path, chunks, folder)`: content that does not fit into memory, by one writer at a time;
  returns its SHA-256. The caller fsyncs the folder, once for several files.
- `fsync(path)`: wait until a file, or the names in a folder, are on the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace a file, or create it.

    Args:
        path: in a folder that exists.
        content: all of it.
        durable: wait until content and name are on the disk.

    Raises:
        OSError: it cannot be written; what was there before still is, and nothing temporary is left.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")  # unique: processes of many nodes share the folder
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())  # before the rename: else a power failure may leave the new name and no bytes
        temporary.replace(path)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        fsync(path.parent)  # the name is stored in the folder, not in the file


def write_chunks_atomically(path: Path, chunks: Iterable[bytes], folder: Path) -> str:
    """Replace a file by what the chunks are together, or create it, and return its SHA-256 as hex digits.

    Args:
        path: in a folder that exists; the caller fsyncs that folder.
        chunks: are written one after the other.
        folder: of the temporary file, on the same file system. A killed writer leaves it there, and the next one
            overwrites it, so only one may write at a time.

    Raises:
        OSError: it cannot be written.
    """
    sha256 = hashlib.sha256()
    unfinished = folder / f"{path.name}.unfinished"
    with unfinished.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            sha256.update(chunk)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return sha256.hexdigest()


def fsync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
