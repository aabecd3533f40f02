"""The table of a remote dataset: a copy in the cache of this node, or, if it is large, pages as they are wanted."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.dataset.cache_settings import CacheSettings
from shards.dataset.file_cache import FileCache, Filled, Needs
from shards.dataset.files import BUILD_AGAIN, INDEX, TABLE
from shards.dataset.table import ROW, Table, check_table, map_rows
from shards.dataset.threads import Threads
from shards.errors import DataError
from shards.storage.place import Url
from shards.storage.storage import Storage, open_storage

COPIED = 1 << 30  # bytes: 27 million samples; of larger tables only the pages that are wanted are read
CONNECTIONS = 16  # pages that are read at the same time
PAGE_ROWS, PAGES = 4096, 128  # rows of a page, 160 KiB; pages that are kept in memory


def open_remote_table(url: Url, samples: int, sha256: str, cache: CacheSettings) -> Table:
    """Return the table of a remote dataset.

    Raises:
        StorageError: it cannot be read.
        DataError: it does not belong to the index.
    """
    storage = open_storage(url, cache.patience_s)
    if samples * ROW.itemsize > COPIED:
        return RemoteTable(storage, samples)
    size = storage.head(TABLE).size
    files = FileCache(cache.folder, int(cache.gb * 1e9))
    path = files.folder / sha256
    for _ in range(2):
        try:
            if path.stat().st_size == size and file_sha256(files, sha256) == sha256:
                files.mark_used([sha256])
                return map_rows(path, samples, url / TABLE)
        except (OSError, ValueError):
            pass  # somebody has removed it meanwhile, or there is none yet
        files.drop(sha256)
        blocks = (ask() for ask in storage.block_requests(TABLE, size))
        if files.fill(sha256, size, blocks, Needs()) is not Filled.THERE:
            break
    # Another process copies it now, there is no room, or it is damaged.
    content = storage.read(TABLE)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{url / TABLE} does not belong to {INDEX}, or is damaged: {BUILD_AGAIN}")
    return parse_table(content, samples, url / TABLE)


def parse_table(content: bytes, samples: int, place: Url) -> npt.NDArray[np.void]:
    """Return the rows of a table that is in memory.

    Raises:
        DataError: it does not belong to the index, or is damaged.
    """
    file = io.BytesIO(content)
    try:
        check_table(file, samples, place)
        return np.frombuffer(content, np.uint8, offset=file.tell()).view(ROW)[:samples]
    except ValueError as error:
        raise DataError(f"{place} cannot be read ({error}): {BUILD_AGAIN}") from error


def file_sha256(files: FileCache, name: str) -> str:
    """Return the SHA-256 of a copy: unlike samples, rows have no hashes of their own."""
    with (files.folder / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RemoteTable:
    """Rows of a table that are read from a bucket when they are wanted, in pages.

    A page is not checked by itself: a wrong row leads to a sample whose hash is not the one in the row.

    Args:
        storage: of the dataset.
        samples: its rows.

    Raises:
        DataError: the file is no such table.
    """

    def __init__(self, storage: Storage, samples: int) -> None:
        self.storage, self.pages, self.lock = storage, OrderedDict[int, npt.NDArray[np.void]](), threading.Lock()
        head = io.BytesIO(storage.read_range(TABLE, 0, 4096))
        try:
            check_table(head, samples, storage.place / TABLE)
        except ValueError as error:
            raise DataError(f"{storage.place / TABLE} cannot be read ({error}): {BUILD_AGAIN}") from error
        self.start, self.samples = head.tell(), samples
        self.threads = Threads(CONNECTIONS, "read rows")
        storage.stop = self.threads.stop

    @property
    def size(self) -> int:
        """The number of rows."""
        return self.samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.void]:
        """Return rows by number, by numbers, or by slice."""
        if isinstance(rows, slice):
            return self[np.arange(*rows.indices(self.samples))]
        wanted = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        out = np.empty(wanted.shape, ROW)
        pages, places = np.divmod(wanted, PAGE_ROWS)
        numbers = np.unique(pages).tolist()
        # All at once: one after the other, each would take as long as the bucket is far away.
        coming = [self.threads.submit(partial(self.page, number)) for number in numbers]
        for number, page in zip(numbers, coming, strict=True):
            here = pages == number
            out[here] = page.result()[places[here]]
        return out if np.ndim(rows) else out[0]

    def page(self, number: int) -> npt.NDArray[np.void]:
        """Return a page."""
        with self.lock:
            if number in self.pages:
                self.pages.move_to_end(number)
                return self.pages[number]
        first = number * PAGE_ROWS
        rows = min(PAGE_ROWS, self.samples - first)
        data = self.storage.read_range(TABLE, self.start + first * ROW.itemsize, rows * ROW.itemsize)
        page = np.frombuffer(data, ROW)
        with self.lock:
            self.pages[number] = page
            if len(self.pages) > PAGES:
                self.pages.popitem(last=False)
        return page
