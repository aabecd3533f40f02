"""A file as a local path, wherever it is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.storage.errors import NotFound
from shards.storage.place import Place
from shards.storage.storage import open_storage


@contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """Give the path of a file: its own, or that of a copy, which is removed afterwards.

    Raises:
        FileNotFoundError: it is not there.
        StorageError: it is remote, and cannot be read.
        OSError: there is no room for the copy.
    """
    if isinstance(place, Path):
        yield place
        return
    storage = open_storage(place.parent)
    with tempfile.NamedTemporaryFile(prefix="lienzo-") as file:
        try:
            size = storage.head(place.name).size
        except NotFound as error:
            raise FileNotFoundError(str(error)) from error
        storage.copy(place.name, size, file)
        file.flush()
        yield Path(file.name)
