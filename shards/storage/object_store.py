"""A bucket, a web server, or memory as a storage, through obstore."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import GenericError
from obstore.store import MemoryStore, from_url

from shards.storage.aws_files import AwsFiles
from shards.storage.backend import CutBody, ObjectInfo
from shards.storage.errors import StorageError, read_problem
from shards.storage.place import Url

SCHEMES = frozenset({"s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "http", "https", "memory"})
# A whole request may take long on a slow link; a silent one is cut off and tried again.
TIMEOUTS = {"connect_timeout": "5s", "read_timeout": "15s", "timeout": "15min"}
# Few tries in the library, which cannot say that it waits; `Storage.retry` goes on for as long as it has patience.
RETRIES: Any = {
    "max_retries": 2,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
    "retry_timeout": timedelta(seconds=10),
}


@lru_cache
def memory(root: str) -> MemoryStore:
    """Return the memory of a name, which lasts as long as the process."""
    return MemoryStore()


def connect(url: Url) -> Any:
    """Return obstore's store for a URL; credentials and endpoints come from the environment.

    Raises:
        StorageError: the environment or the URL is wrong.
    """
    if url.scheme == "memory":
        return memory(url.root)
    options: dict[str, Any] = {"client_options": dict(TIMEOUTS), "retry_config": RETRIES}
    plain = url.scheme == "http"
    if url.scheme in ("s3", "s3a"):
        files = AwsFiles(os.environ)
        options |= files.options()
        plain = (files.endpoint() or "").startswith("http:")
    if plain:
        options["client_options"]["allow_http"] = True
    try:
        return from_url(url.root if url.scheme in ("s3", "s3a", "gs") else str(url), **options)
    except Exception as error:  # of several kinds, of a Rust library; each is about what the user has set
        raise StorageError(f"{url} cannot be opened: {read_problem(error).detail}") from error


class ObjectStore:
    """A prefix of a bucket, or a folder of a web server.

    Args:
        url: of it.

    Raises:
        StorageError: the environment or the URL is wrong.
    """

    def __init__(self, url: Url) -> None:
        self.store = connect(url)
        # Where the whole URL was given, the store puts the prefix before names itself.
        self.prefix = url.key if url.scheme in ("s3", "s3a", "gs", "memory") else ""

    def path(self, name: str) -> str:
        """Return the key of an object."""
        return f"{self.prefix}/{name}" if self.prefix and name else self.prefix or name

    def read(self, name: str) -> bytes:
        """Return a whole object."""
        answer = obstore.get(self.store, self.path(name))
        return complete(bytes(answer.bytes()), answer.meta["size"])

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Return bytes of an object; fewer, where it ends before."""
        try:
            answer = obstore.get(self.store, self.path(name), options={"range": (start, start + length)})
        except GenericError as error:
            if read_problem(error).status == 416:
                return b""  # it ends before
            if "non-partial" not in str(error):
                raise
            # A server that gives no ranges, or none that goes beyond the end.
            return self.read(name)[start : start + length]
        first, end = answer.range
        return complete(bytes(answer.bytes()), end - first)

    def head(self, name: str) -> ObjectInfo:
        """Return size and etag."""
        found = obstore.head(self.store, self.path(name))
        return ObjectInfo(name, found["size"], found["e_tag"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose names begin with a prefix, with those in folders below, by name."""
        # The library lists whole folders only.
        folder, skip = self.path(prefix.rpartition("/")[0]), len(self.prefix) + 1 if self.prefix else 0
        found = [one for page in obstore.list(self.store, folder or None) for one in page]
        for one in sorted(found, key=lambda one: one["path"]):
            if one["path"][skip:].startswith(prefix):
                yield ObjectInfo(one["path"][skip:], one["size"], one["e_tag"])

    def write(self, name: str, content: bytes | Path) -> None:
        """Write an object, in parts if it is large: it appears whole or not at all."""
        obstore.put(self.store, self.path(name), content)

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there counts as deleted."""
        obstore.delete(self.store, self.path(name))


def complete(body: bytes, size: int) -> bytes:
    """Return a body that has the size that was announced.

    Raises:
        CutBody: it has not.
    """
    if len(body) != size:
        raise CutBody(f"the answer ended after {len(body)} of {size} bytes")
    return body
