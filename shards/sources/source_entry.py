"""What a source lists, and the names of files: bytes, as file systems have them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceEntry:
    """One file of a source: a candidate for a picture, or excluded already."""

    name: bytes
    """Relative to the source, with slashes."""
    place: str = ""
    """Where it lies and which version was listed, such as size and time; only its source reads it."""
    reason: str | None = None
    """Why it is excluded: a key of exclusion.REASONS."""
    detail: str = ""


def decode_name(name: bytes) -> str:
    """Return a name as text, for people and JSON; bytes that are not UTF-8 become lone surrogates."""
    return name.decode("utf-8", "surrogateescape")


def encode_name(text: str) -> bytes:
    """Return the bytes of a name: the inverse of `decode_name`."""
    return text.encode("utf-8", "surrogateescape")


def quote_name(name: bytes | str, most: int = 80) -> str:
    """Return a name for a message: in quotes, with the middle left out if it is longer than `most` characters."""
    text = repr(decode_name(name) if isinstance(name, bytes) else name)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"
