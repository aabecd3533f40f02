"""Read and write at a place, wherever it is; what fails for a moment is tried again.

    storage = open_storage(parse_place("s3://bucket/folder"))
    storage.read("index.json")
    storage.read_range("train-000000.tar", 512, 4096)
    storage.write("card.md", b"…")

Names are relative to the place, with `/` between their parts. An object that is written appears whole or not at all.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from shards.storage.backend import Backend, ObjectInfo
from shards.storage.errors import NotFound, read_problem, storage_error
from shards.storage.local_files import LocalFiles
from shards.storage.place import Place, Url
from shards.storage.read_ahead import read_ahead

T = TypeVar("T")
log = logging.getLogger(__name__)

PATIENCE_S = 120.0  # a request is tried again for so long, then it has failed
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
BLOCK = 8 << 20  # bytes of one request for a part of a large object
NOTE_AFTER_S = 5.0  # of waiting, a line in the log says so


class Storage:
    """A place that is read and written; safe to use from several threads.

    All methods raise:
        NotFound: there is no such object or bucket.
        Unreachable: it did not answer in `patience_s`.
        StorageError: it refused.

    Args:
        place: a folder, bucket or prefix.
        backend: for its scheme.
        patience_s: how long a request is tried again.
    """

    def __init__(self, place: Place, backend: Backend, patience_s: float = PATIENCE_S) -> None:
        self.place, self.backend, self.patience_s = place, backend, patience_s
        self.stop = threading.Event()  # nothing is tried again after it is set

    def read(self, name: str) -> bytes:
        """Return a whole object."""
        return self.retry(name, "read", lambda: self.backend.read(name))

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Return bytes of an object; fewer, where it ends before.

        It may end early because the answer was cut: ask `head` for its size, or know the length, and compare.
        """
        return self.retry(name, "read", lambda: self.backend.read_range(name, start, length)) if length else b""

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]], ahead: int = 1) -> Iterator[bytes]:
        """Yield the bytes of each (start, length) of an object; `ahead` of them are asked for at the same time."""
        for answer in read_ahead((partial(self.read_range, name, *one) for one in ranges), ahead):
            yield answer()

    def block_requests(self, name: str, size: int) -> Iterator[Callable[[], bytes]]:
        """Yield what reads the blocks of an object of a known size, one after the other or several at the same time."""
        if size <= BLOCK:
            # Without a range: some servers answer one over the whole object in another way.
            yield partial(self.read, name)
            return
        for start in range(0, size, BLOCK):
            yield partial(self.read_range, name, start, min(BLOCK, size - start))

    def copy(self, name: str, size: int, file: IO[bytes]) -> None:
        """Write an object of a known size into a local file."""
        for ask in self.block_requests(name, size):
            file.write(ask())

    def head(self, name: str) -> ObjectInfo:
        """Return size and etag."""
        return self.retry(name, "read", lambda: self.backend.head(name))

    def exists(self, name: str) -> bool:
        """Return whether there is such an object."""
        try:
            self.head(name)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose names begin with a prefix, with those in folders below, by name."""
        return iter(self.retry(prefix, "listed", lambda: [*self.backend.list(prefix)]))

    def write(self, name: str, content: bytes | Path) -> None:
        """Write an object from memory or from a local file: it appears whole or not at all."""
        self.retry(name, "written", lambda: self.backend.write(name, content))

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there counts as deleted."""
        try:
            self.retry(name, "deleted", lambda: self.backend.delete(name))
        except NotFound:
            return

    def retry(self, name: str, doing: str, request: Callable[[], T]) -> T:
        """Return what a request returns; after an error that passes, try it again for a while."""
        began, pause, noted = time.monotonic(), FIRST_PAUSE_S, False
        url = str(self.place / name) if name else str(self.place)
        while True:
            try:
                return request()
            except Exception as error:
                problem = read_problem(error)
                waited = time.monotonic() - began
                if not problem.retry or waited + pause > self.patience_s or self.stop.is_set():
                    raise storage_error(url, doing, problem, waited) from error
            if waited > NOTE_AFTER_S and not noted:
                noted = True
                log.warning("waiting for %s, up to %.0f s: %s", url, self.patience_s, problem.detail)
            # Full jitter: many processes that lost the same server must not come back at the same moment.
            self.stop.wait(random.uniform(0, pause) + FIRST_PAUSE_S / 2)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def open_storage(place: Place, patience_s: float = PATIENCE_S) -> Storage:
    """Return the storage at a place; nothing is read yet.

    Raises:
        StorageError: nothing here can read such a URL, or its settings in the environment are wrong.
    """
    if not isinstance(place, Url):
        return Storage(place, LocalFiles(place), patience_s)
    # Here: local data needs neither library.
    from shards.storage.object_store import SCHEMES, ObjectStore

    if place.scheme in SCHEMES:
        return Storage(place, ObjectStore(place), patience_s)
    from shards.storage.file_system import FileSystem

    return Storage(place, FileSystem(place), patience_s)
