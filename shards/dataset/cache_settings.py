"""Where copies of remote data are kept on this machine, and how much room they may take."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from shards.storage.storage import PATIENCE_S

CACHE_GB = 50.0


def default_folder() -> Path:
    """Return where copies are kept unless the user names a folder: what Slurm or TMPDIR gives, else ~/.cache."""
    for name in ("SLURM_TMPDIR", "TMPDIR"):
        if folder := os.environ.get(name):
            return Path(folder) / f"lienzo-shards-{os.getuid()}"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lienzo" / "shards"


@dataclass(frozen=True)
class CacheSettings:
    """The cache of remote data."""

    folder: Path = field(default_factory=default_folder)
    gb: float = CACHE_GB
    patience_s: float = PATIENCE_S  # how long a server that is gone is waited for
