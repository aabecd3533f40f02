"""Files that are whole or not there, whatever happens to the machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def write_durably(path: Path, chunks: Iterable[bytes], folder: Path) -> str:
    """Write a file under a temporary name in `folder`, flush it to the disk, give it its name, and return its SHA-256.

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


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` in the place of `path`: durable, and at no time half written."""
    temporary = path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}.tmp")  # nodes share the folder
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
