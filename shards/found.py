"""What a source lists."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """One file of a source: perhaps a picture, or excluded from the start."""

    name: bytes
    """Relative to the source."""
    place: str = ""
    """Where it lies and which version was seen; only its source understands it."""
    target: bytes | None = None
    """For a link, the name of the file that it leads to."""
    reason: str | None = None
    """Why it is excluded: a key of exclusion.REASONS."""
    detail: str = ""
