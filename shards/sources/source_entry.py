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


def to_text(name: bytes) -> str:
    """Return a name for people and JSON; bytes that are no UTF-8 become lone surrogates, and `to_bytes` undoes it."""
    return name.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """Return the bytes of a name."""
    return text.encode("utf-8", "surrogateescape")


def to_show(name: bytes | str, most: int = 80) -> str:
    """Return a name for a message: in quotes, and cut in the middle if it is long."""
    text = repr(to_text(name) if isinstance(name, bytes) else name)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"
