"""Files that commands write for their user: whole or not there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from trainer.core.fields import Refused


def check_parent(file: Path) -> None:
    """Refuse a file whose folder is not there, before anything is generated for it.

    Raises:
        Refused: naming the folder.
    """
    if not file.parent.is_dir():
        raise Refused(f"{file} cannot be written: there is no folder {file.parent}")


def write(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there.

    Raises:
        Refused: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
