"""A zip or tar at a URL: it is copied into the work folder of a build once, and read there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from shards.errors import DataError
from shards.sources.source import SOURCES
from shards.storage.place import Place, Url
from shards.storage.read_ahead import read_ahead
from shards.storage.storage import open_storage

REQUESTS = 4  # at the same time, each for a block


def fetch_source(place: Place, work: Path, on_tick: Callable[[int], None]) -> Place:
    """Return where a source is read: if an object is at its URL, in a copy of that, else where it is.

    Args:
        place: of the source.
        work: the folder for the copy.
        on_tick: called now and then; may raise.

    Raises:
        StorageError: it cannot be asked or read.
        DataError: it changes while it is read.
        OSError: it cannot be written.
    """
    if not isinstance(place, Url) or not place.key or place.text.endswith("/"):
        return place
    if place.scheme in SOURCES:  # another package opens it: it is no object in a storage
        return place
    return fetch_archive(place, work, on_tick) if open_storage(place.parent).exists(place.name) else place


def fetch_archive(url: Url, work: Path, on_tick: Callable[[int], None]) -> Path:
    """Return the path of a copy, which is made unless an earlier attempt has made one of the same version.

    Args:
        url: of the archive.
        work: the folder for it.
        on_tick: called for each block; may raise.

    Raises:
        StorageError: it cannot be read.
        DataError: it changes while it is read.
        OSError: it cannot be written.
    """
    storage = open_storage(url.parent)
    info = storage.head(url.name)
    version = hashlib.sha256(f"{url} {info.size} {info.etag}".encode()).hexdigest()[:12]
    path = work / f"source-{version}" / url.name
    if path.exists():
        return path
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("wb") as file:
        for number, answer in enumerate(read_ahead(storage.block_requests(url.name, info.size), REQUESTS)):
            on_tick(number)
            file.write(answer())
        file.flush()
        os.fsync(file.fileno())
    if unfinished.stat().st_size != info.size or storage.head(url.name) != info:
        raise DataError(f"{url} changed while it was copied: run the same command again when it is complete")
    unfinished.replace(path)
    return path
