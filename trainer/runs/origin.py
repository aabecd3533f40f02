"""Which folder a record was written in: a copy of a run folder has records that lead to the original's processes."""

from __future__ import annotations

import os
from pathlib import Path


def inode(folder: Path) -> int:
    """Return the number that names a folder in its file system: a rename, a link or another mount keeps it, a copy not.

    Raises:
        OSError: there is no such folder.
    """
    return folder.stat().st_ino


def is_copy(folder: Path, name: str, path: str, number: int) -> bool:
    """Tell whether the record `name` in a folder was written in another one, and copied.

    Args:
        folder: that holds the record now.
        name: of the record's file.
        path, number: of the folder that the record was written in; 0: the record does not say.
    """
    if not number:
        return False
    try:
        # The same number in another file system, as a snapshot of the whole one has: then the original is still there.
        return inode(folder) != number or original_is_elsewhere(folder, name, path)
    except OSError:
        return False


def original_is_elsewhere(folder: Path, name: str, path: str) -> bool:
    """Tell whether the folder at `path`, where the record `name` was written, has it still and is another one."""
    return (Path(path) / name).exists() and not os.path.samefile(path, folder)
