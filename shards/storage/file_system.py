"""What else fsspec knows, such as hf://, as a storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import fsspec

from shards.storage.backend import ObjectInfo
from shards.storage.errors import StorageError
from shards.storage.place import Url


class FileSystem:
    """A folder of a file system of fsspec.

    Args:
        url: of it.

    Raises:
        StorageError: there is no file system for such a URL, or a package that it needs is not installed.
    """

    def __init__(self, url: Url) -> None:
        try:
            self.files, self.folder = fsspec.core.url_to_fs(str(url))
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"{url}: {url.scheme}:// cannot be read: {error}; known are s3://, gs://, az://, https://, and those "
                "that fsspec knows and whose package is installed"
            ) from error

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return f"{self.folder.rstrip('/')}/{name}" if name else str(self.folder)

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        return bytes(self.files.cat_file(self.path(name)))

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Return bytes of a file; fewer, where it ends before."""
        return bytes(self.files.cat_file(self.path(name), start=start, end=start + length))

    def head(self, name: str) -> ObjectInfo:
        """Return size and etag."""
        self.files.invalidate_cache()  # what another process has written since must be seen
        info = self.files.info(self.path(name))
        if info.get("type") == "directory":
            raise FileNotFoundError(name)  # as in a bucket, where a folder is no object
        return described(name, info)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the files whose names begin with a prefix, with those in folders below, by name."""
        self.files.invalidate_cache()
        found = self.files.find(self.path(prefix.rpartition("/")[0]), detail=True)
        skip = len(self.folder.rstrip("/")) + 1
        for path in sorted(found):
            if path[skip:].startswith(prefix):
                yield described(path[skip:], found[path])

    def write(self, name: str, content: bytes | Path) -> None:
        """Write a file: under another name first, so that it appears whole or not at all."""
        path = self.path(name)
        temporary = f"{path}.{uuid4().hex}.tmp"
        self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            if isinstance(content, bytes):
                self.files.pipe_file(temporary, content)
            else:
                self.files.put_file(str(content), temporary)
            self.files.mv(temporary, path)
        except BaseException:
            with suppress(OSError, NotImplementedError):
                self.files.rm_file(temporary)
            raise

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there counts as deleted."""
        with suppress(FileNotFoundError):
            self.files.rm_file(self.path(name))


def described(name: str, info: dict[str, object]) -> ObjectInfo:
    """Return what a file system says of a file."""
    etag = info.get("ETag") or info.get("etag") or info.get("blob_id")
    return ObjectInfo(name, int(str(info["size"])), None if etag is None else str(etag))
