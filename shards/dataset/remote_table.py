"""Rows of a remote dataset: a copy of their file in the cache of this node, or, if it is large, pages as they come."""

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
from shards.dataset.files import BUILD_AGAIN, INDEX
from shards.dataset.table import RowFile, Table, check_table, map_rows
from shards.dataset.threads import Threads
from shards.errors import DataError
from shards.npy_header import npy_header
from shards.storage.place import Url
from shards.storage.storage import Storage, open_storage

COPIED = 1 << 30  # bytes: 27 million samples of a table; of larger files only the pages that are wanted are read
CONNECTIONS = 16  # pages that are read at the same time
PAGE_ROWS, PAGES = 4096, 128  # rows of a page, 160 KiB; pages that are kept in memory


def open_remote_rows(url: Url, rows: RowFile, cache: CacheSettings) -> Table:
    """Return the rows of a file of a remote dataset.

    Raises:
        StorageError: it cannot be read.
        DataError: it does not belong to the index.
    """
    storage = open_storage(url, cache.patience_s)
    if rows.samples * rows.row.itemsize > COPIED:
        return RemoteTable(storage, rows)
    size = storage.head(rows.name).size
    files = FileCache(cache.folder, int(cache.gb * 1e9))
    path = files.folder / rows.sha256
    for _ in range(2):
        try:
            if path.stat().st_size == size and file_sha256(files, rows.sha256) == rows.sha256:
                files.mark_used([rows.sha256])
                return map_rows(path, rows, url / rows.name)
        except (OSError, ValueError):
            pass  # somebody has removed it meanwhile, or there is none yet
        files.drop(rows.sha256)
        blocks = (ask() for ask in storage.block_requests(rows.name, size))
        if files.fill(rows.sha256, size, blocks, Needs()) is not Filled.THERE:
            break
    # Another process copies it now, there is no room, or it is damaged.
    content = storage.read(rows.name)
    if hashlib.sha256(content).hexdigest() != rows.sha256:
        raise DataError(f"{url / rows.name} does not belong to {INDEX}, or is damaged: {BUILD_AGAIN}")
    return parse_rows(content, rows, url / rows.name)


def parse_rows(content: bytes, rows: RowFile, place: Url) -> npt.NDArray[np.void]:
    """Return the rows of a file that is in memory.

    Raises:
        DataError: it does not belong to the index, or is damaged.
    """
    file = io.BytesIO(content)
    try:
        check_table(file, rows, place)
        return np.frombuffer(content, np.uint8, offset=file.tell()).view(rows.row)[: rows.samples]
    except ValueError as error:
        raise DataError(f"{place} cannot be read ({error}): {BUILD_AGAIN}") from error


def file_sha256(files: FileCache, name: str) -> str:
    """Return the SHA-256 of a copy: unlike samples, rows have no hashes of their own."""
    with (files.folder / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RemoteTable:
    """Rows that are read from a bucket when they are wanted, in pages.

    A page is not checked by itself: a wrong row of the table leads to a sample whose hash is not the one in the row.

    Args:
        storage: of the dataset.
        rows: the file.

    Raises:
        DataError: the file is no such table.
    """

    def __init__(self, storage: Storage, rows: RowFile) -> None:
        self.storage, self.name, self.row, self.samples = storage, rows.name, rows.row, rows.samples
        self.pages, self.lock = OrderedDict[int, npt.NDArray[np.void]](), threading.Lock()
        least = len(npy_header(rows.row, rows.samples))  # NumPy, which may have written it, needs no more than the rest
        head = io.BytesIO(storage.read_range(rows.name, 0, max(4096, least)))
        try:
            check_table(head, rows, storage.place / rows.name)
        except ValueError as error:
            raise DataError(f"{storage.place / rows.name} cannot be read ({error}): {BUILD_AGAIN}") from error
        self.start = head.tell()
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
        out = np.empty(wanted.shape, self.row)
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
        size = self.row.itemsize
        data = self.storage.read_range(self.name, self.start + first * size, rows * size)
        page = np.frombuffer(data, self.row)
        with self.lock:
            self.pages[number] = page
            if len(self.pages) > PAGES:
                self.pages.popitem(last=False)
        return page
