"""Pictures below a URL: in a bucket, or on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from shards.exclusion import Excluded
from shards.sources.source_entry import SourceEntry, decode_name, encode_name
from shards.storage.errors import NotFound
from shards.storage.place import Url
from shards.storage.storage import Storage, open_storage


class RemoteFolder:
    """All objects below a URL; a place is "size:etag".

    Args:
        url: of a bucket, or of a folder.
    """

    requests = 16  # from each worker at the same time: a far server answers after tens of milliseconds

    def __init__(self, url: Url) -> None:
        self.url = url
        self.notes: list[str] = []

    @cached_property
    def storage(self) -> Storage:
        """The storage, opened in each process that reads from it."""
        return open_storage(self.url)

    def scan(self) -> Iterator[SourceEntry]:
        """Yield all objects, as a folder with the same files does.

        Raises:
            StorageError: they cannot be listed.
        """
        hidden = ""
        # Another storage than that of `read`, which cannot be sent to a worker.
        for found in open_storage(self.url).list():
            if found.name.endswith("/"):
                continue  # what some programs write for a folder
            name = hidden_part(found.name)
            if name is None:
                yield SourceEntry(encode_name(found.name), f"{found.size}:{found.etag or ''}")
            elif name != hidden:  # they are listed by name, so those of one folder come together
                hidden = name
                detail = "file" if name == found.name else "folder"
                yield SourceEntry(encode_name(name), reason="hidden", detail=detail)

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Return the content of one object.

        Raises:
            Excluded: it is longer than `max_bytes`, or is not what was listed.
            StorageError: it cannot be read now.
        """
        size = int(place.partition(":")[0])
        if size > max_bytes:
            raise Excluded("too_many_bytes", f"{size} bytes")
        try:
            data = self.storage.read(decode_name(name))
        except NotFound as error:
            raise Excluded("unreadable", "gone since it was listed") from error
        if len(data) != size:
            raise Excluded("unreadable", f"{size} bytes when it was listed, and then {len(data)}")
        return data

    def size_of(self, place: str) -> int:
        """Return the bytes that are read for the file at a place."""
        return int(place.partition(":")[0])


def hidden_part(name: str) -> str | None:
    """Return the path of the first folder or file with a leading dot in a path; None: there is none."""
    if name.startswith("."):
        return name.partition("/")[0]
    above, dot, rest = name.partition("/.")
    return above + dot + rest.partition("/")[0] if dot else None
