"""The interface of sources, and `open_source`. A source lists its files without opening them, and reads one by
name.

Names are bytes, as file systems have them. A file's `place` tells its source where the file lies and which version of
it was listed; to everybody else it is an opaque string.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from command_line.plugins import PluginError, Registry
from shards.dataset.index import DataError
from shards.sources.archive import archive_kind
from shards.sources.folder import FolderSource
from shards.sources.parquet_source import ParquetSource, parquet_files
from shards.sources.remote_folder import RemoteFolder
from shards.sources.source_entry import SourceEntry
from shards.sources.tar_source import TarSource
from shards.sources.zip_source import ZipSource
from shards.storage.object_store import SCHEMES
from shards.storage.place import Place, Url


class Source(Protocol):
    """A set of files. It can be pickled and sent to a worker process, which opens its own file descriptors."""

    requests: int
    """How many reads each process has under way at the same time; 1: one after the other."""
    notes: list[str]
    """What the user should know of the source as a whole; complete after `scan`."""

    def scan(self) -> Iterator[SourceEntry]:
        """Yield every file, in any order.

        Raises:
            DataError: the source is damaged.
        """

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Return the content of one file.

        Raises:
            Excluded: it cannot be read, or is longer.
            StorageError: its storage does not answer.
        """

    def size_of(self, place: str) -> int:
        """Return the bytes that are read for the file at a place; where that is not known, the same for all."""


# What other packages open, by the scheme of its URL.
OPENS = "a function of a shards.storage.place.Url that opens a Source"
SOURCES: Registry[Callable[[Url], Source]] = Registry("sources", {}, OPENS, callable, (*SCHEMES, "file"), str.islower)


def open_url(url: Url) -> Source:
    """Open the source at a URL: by the package that has added its scheme, else as a folder in a bucket.

    Raises:
        DataError: the package cannot be used, or has no such source.
    """
    if url.scheme not in SOURCES:
        return RemoteFolder(url)
    try:
        return SOURCES[url.scheme](url)
    except PluginError as error:
        raise DataError(f"the source {error}") from error


def open_source(path: Place, follow_links: bool) -> Source:
    """Open the source at a place.

    Args:
        path: of a folder, a zip, a tar or a Parquet file; the URL of a folder, or one that a plugin opens.
        follow_links: in a folder, also take files outside of it to which links lead.

    Raises:
        DataError: there is no such source.
    """
    if isinstance(path, Url):
        return open_url(path)
    if files := parquet_files(path):
        return ParquetSource(files)
    if path.is_dir():
        return FolderSource(path, follow_links)
    if not path.exists():
        raise DataError(f"{path} does not exist: SRC is a folder of pictures, a zip or a tar")
    if not path.is_file():
        raise DataError(f"{path} is neither a folder nor a file: SRC is a folder of pictures, a zip or a tar")
    kind = archive_kind(path)
    return ZipSource(path) if kind == "zip" else TarSource(path)
