"""What a storage knows of an object, and what one of its kinds has to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """An object or file."""

    name: str  # relative to the place
    size: int
    etag: str | None  # changes with the content; None: the storage has none


class CutBody(Exception):
    """An answer ended before it was complete."""


class Backend(Protocol):
    """One kind of storage; it raises the errors of its library."""

    def read(self, name: str) -> bytes:
        """Return a whole object."""

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Return bytes of an object; fewer, where it ends before."""

    def head(self, name: str) -> ObjectInfo:
        """Return size and etag."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose names begin with a prefix, with those in folders below, by name."""

    def write(self, name: str, content: bytes | Path) -> None:
        """Write an object: it appears whole or not at all."""

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there counts as deleted."""
