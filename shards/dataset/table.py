"""Files of a dataset with a row for each sample, its table above all: mapped into memory, or read from a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from shards.dataset.cache_settings import CacheSettings
from shards.dataset.files import BUILD_AGAIN, INDEX, TABLE
from shards.errors import DataError
from shards.npy_header import npy_header, read_npy_header
from shards.storage.place import Place, Url

ROW = np.dtype(
    [
        ("start", "<u8"),  # first byte of the sample's region in its shard
        ("offset", "<u8"),  # first byte of the image
        ("size", "<u4"),  # bytes of the image
        ("label", "<i4"),  # its class, -1: none
        ("image_hash", "<u8"),  # XXH3-64 of the image's bytes
        ("region_hash", "<u8"),  # XXH3-64 of the region: headers, image, json, padding
    ]
)


class RowFile(NamedTuple):
    """A .npy file beside an index, with a row for each sample."""

    name: str
    row: np.dtype[Any]
    samples: int
    sha256: str


class Table(Protocol):
    """Rows by their numbers: an array, or what reads them from a bucket."""

    @property
    def size(self) -> int:
        """The number of rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.void]: ...


def open_table(path: Place, samples: int, sha256: str, cache: CacheSettings) -> Table:
    """Return the table of a local or a remote dataset: (samples,) of ROW.

    Raises:
        DataError: it cannot be read, or belongs to another index.
    """
    return open_rows(path, RowFile(TABLE, ROW, samples, sha256), cache)


def open_rows(path: Place, rows: RowFile, cache: CacheSettings) -> Table:
    """Return the rows of a file beside a local or a remote index: (samples,).

    Raises:
        DataError: it cannot be read, or belongs to another index.
    """
    if not isinstance(path, Url):
        return map_file(path / rows.name, rows)
    from shards.dataset.remote_table import open_remote_rows  # and with it obstore, which local data does not need

    return open_remote_rows(path, rows, cache)


def map_table(path: Path, samples: int) -> npt.NDArray[np.void]:
    """Map a table into memory, and check its length: (samples,) of ROW.

    Raises:
        DataError: it cannot be read, or belongs to another index.
    """
    return map_file(path, RowFile(TABLE, ROW, samples, ""))


def map_file(path: Path, rows: RowFile) -> npt.NDArray[np.void]:
    """Map a file of rows into memory, and check their number and type: (samples,).

    Raises:
        DataError: it cannot be read, or belongs to another index.
    """
    try:
        return map_rows(path, rows, path)
    except (EOFError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): {BUILD_AGAIN}") from error


def map_rows(path: Path, rows: RowFile, shown: Place) -> npt.NDArray[np.void]:
    """Map a file, or a copy of the one at `shown`, into memory: (samples,).

    Raises:
        EOFError, OSError, ValueError: it cannot be read.
        DataError: it belongs to another index.
    """
    with path.open("rb") as file:
        check_table(file, rows, shown)
    # Nothing cannot be mapped.
    table: npt.NDArray[np.void] = np.load(path, mmap_mode="r" if rows.samples else None, allow_pickle=False)
    return table


def check_table(file: BinaryIO, rows: RowFile, place: Place) -> None:
    """Check by its header that a file belongs to its index; it is left at its first row.

    Raises:
        ValueError: it is no such file.
        DataError: it belongs to another index.
    """
    expected = npy_header(rows.row, rows.samples)
    if file.read(len(expected)) == expected:
        return
    file.seek(0)  # its header may be written in another way
    shape, dtype = read_npy_header(file)
    if dtype != rows.row or shape != (rows.samples,):
        raise DataError(f"{place} does not belong to {INDEX}: it has not {rows.samples} rows: {BUILD_AGAIN}")
