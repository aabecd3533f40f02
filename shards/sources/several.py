"""Several sources as one: the names of the files of each begin with its own name and a slash."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shards.sources.source import Source, open_source
from shards.sources.source_entry import SourceEntry, encode_name
from shards.storage.place import Place

ONE_AT_A_TIME = threading.Lock()  # an open archive has one position


class SeveralSources:
    """Sources that are listed, and read, as one; a place is the number of a source, a slash, and its own place.

    Args:
        members: each by its name, which has no slash.
    """

    def __init__(self, members: Mapping[str, Source]) -> None:
        self.members = [(encode_name(name), members[name]) for name in sorted(members)]
        self.requests = max(source.requests for source in members.values())
        self.notes: list[str] = []

    def scan(self) -> Iterator[SourceEntry]:
        """Yield every file of every source.

        Raises:
            DataError: a source is damaged.
        """
        self.notes = []
        for number, (name, source) in enumerate(self.members):
            for entry in source.scan():
                yield replace(entry, name=name + b"/" + entry.name, place=f"{number}/{entry.place}")
            self.notes += source.notes

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Return the content of one file.

        Raises:
            Excluded: it cannot be read, or is longer.
            StorageError: its storage does not answer.
        """
        number, _, there = place.partition("/")
        prefix, source = self.members[int(number)]
        inside = name[len(prefix) + 1 :]
        if source.requests > 1 or self.requests == 1:
            return source.read(inside, there, max_bytes)
        with ONE_AT_A_TIME:  # several threads read, for the sake of another member
            return source.read(inside, there, max_bytes)

    def size_of(self, place: str) -> int:
        """Return the bytes that are read for the file at a place."""
        number, _, there = place.partition("/")
        return self.members[int(number)][1].size_of(there)


def open_sources(places: Mapping[str, Place], follow_links: bool) -> Source:
    """Open the sources at these places, by their names; a single one has none.

    Raises:
        DataError: there is no such source.
    """
    members = {name: open_source(place, follow_links) for name, place in places.items()}
    return SeveralSources(members) if len(members) > 1 else members[""]


def name_prefixes(settings: Mapping[str, Any]) -> Sequence[bytes]:
    """Return what the names of the pictures of each source begin with; of a single source: nothing."""
    return [encode_name(name) + b"/" for name in settings["sources"]] if "sources" in settings else [b""]
