"""Files that commands write for their user: whole or not there."""

from __future__ import annotations

from pathlib import Path

from shards.atomic_files import write_atomically
from trainer.core.fields import Refused


def check_parent(file: Path) -> None:
    """Refuse a file whose folder is not there, before anything is generated for it.

    Raises:
        Refused: naming the folder.
    """
    if not file.parent.is_dir():
        raise Refused(f"{file} cannot be written: there is no folder {file.parent}")


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there.

    Raises:
        Refused: it cannot be written.
    """
    try:
        write_atomically(path, content, durable=False)  # the same command makes the pictures again, bit by bit
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
