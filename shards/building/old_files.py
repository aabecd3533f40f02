"""Files of the dataset that a build adds to: read where they are or copied, and compared with their hashes."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from shards.atomic_files import write_chunks_atomically
from shards.errors import DataError
from shards.storage.errors import NotFound, StorageError
from shards.storage.place import Place, Url
from shards.storage.read_ahead import read_ahead
from shards.storage.storage import open_storage

REQUESTS = 16  # at the same time, to a URL


def fetch_file(place: Place, name: str, sha256: str, work: Path) -> Path:
    """Return the path of a file of a dataset, or of a copy of it, after comparing its hash.

    Raises:
        DataError: it is missing or damaged.
        OSError: it cannot be read, or the copy not be written.
    """
    if isinstance(place, Url):
        path = work / f"old-{sha256[:12]}-{name}"
        if not path.exists():
            copy_file(place, name, sha256, path)
        return path
    try:
        with (place / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return place / name
    except FileNotFoundError:
        pass
    raise damage(place, name)


def copy_file(place: Place, name: str, sha256: str, path: Path) -> None:
    """Copy a file of a dataset, and compare its hash.

    Raises:
        DataError: it is missing or damaged.
        OSError: it cannot be read or written.
    """
    storage = open_storage(place)
    try:
        blocks = storage.block_requests(name, storage.head(name).size)
        answers = read_ahead(blocks, REQUESTS if isinstance(place, Url) else 1)
        found = write_chunks_atomically(path, (answer() for answer in answers), path.parent)
    except NotFound as error:
        raise damage(place, name) from error
    except StorageError as error:
        raise OSError(str(error)) from error
    if found != sha256:
        path.unlink()
        raise damage(place, name)


def read_ranges(place: Place, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of each (start, length) of a file of a dataset.

    Raises:
        OSError: it cannot be read.
    """
    try:
        yield from open_storage(place).read_ranges(name, ranges, REQUESTS if isinstance(place, Url) else 1)
    except StorageError as error:
        raise OSError(str(error)) from error


def damage(place: Place, name: str) -> DataError:
    """Return the error that a file of a dataset is not what was written."""
    command = f"python -m shards verify {shlex.quote(str(place))}"
    return DataError(f"--add {place}: {name} is damaged or missing; see: {command}")
