"""Write tensors into a file."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from trainer.core.migration import in_metadata


def write_tensors(tensors: Mapping[str, Tensor], file: Path, about: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with the schema in its metadata, and the mode that the umask says.

    Args:
        tensors: contiguous, by name; no two share memory.
        file: to write, or to replace.
        about: more metadata.

    Raises:
        OSError, SafetensorError: it cannot be written; safetensors tells of a full disk in an error of its own.
    """
    file.touch()
    mode = stat.S_IMODE(file.stat().st_mode)
    save_file(dict(tensors), file, {**(about or {}), **in_metadata()})
    file.chmod(mode)  # safetensors makes files that none but their owner can read
