"""Where finished files of a build go: they are named in a local folder, or uploaded to a URL and removed here.

A build for a URL works in a local folder. Each training shard is uploaded when its final name is known, the other files
when they are complete, and index.json last of all: the dataset exists when index.json does. A part that is still here
was not uploaded, or not known to be: after a kill it is uploaded again, under the same name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol

from shards.building.build_db import BuildDb
from shards.building.holdout import SPLITS, TRAIN
from shards.building.interruption import BuildStopped
from shards.building.shard import part_path
from shards.dataset.index import DataError
from shards.dataset.splits import shard_name
from shards.storage.errors import StorageError
from shards.storage.place import Place, Url
from shards.storage.storage import Storage, open_storage

UPLOADS = 4  # at the same time
MAX_WAITING = 8  # uploads that are not finished: then building waits, so that the disk does not fill up
POLL_S = 0.5  # between looks at signals
READS = 16  # pictures of the card that are read at the same time


class Target(Protocol):
    """Where finished files go."""

    def put(self, made: Path, name: str) -> None:
        """Give a complete local file its final name; if it is not there, an earlier attempt has done so.

        Raises:
            BuildStopped: an upload failed.
            OSError: it cannot be renamed.
        """

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Yield the bytes of each (start, length) of a finished file."""

    def has(self, name: str, size: int) -> bool:
        """Return whether an earlier attempt has put a file of this name and size."""

    def complete(self, sizes: Mapping[str, int]) -> None:
        """Wait until everything is where it belongs.

        Args:
            sizes: of the shards, in bytes, by name; empty: they are not all made yet.

        Raises:
            BuildStopped: an upload failed.
            DataError: a shard that was uploaded is not there any more.
        """


class LocalTarget:
    """A local folder.

    Args:
        folder: its path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, made: Path, name: str) -> None:
        """Rename a file."""
        if made.exists():  # else a finalize that was killed has renamed it already
            os.replace(made, self.folder / name)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Yield the bytes of each (start, length) of a file."""
        with (self.folder / name).open("rb") as file:
            for start, length in ranges:
                yield os.pread(file.fileno(), length, start)

    def has(self, name: str, size: int) -> bool:
        """Return whether a file of this name and size is there."""
        path = self.folder / name
        return path.exists() and path.stat().st_size == size

    def complete(self, sizes: Mapping[str, int]) -> None:
        """Do nothing: a rename needs no waiting."""


class RemoteTarget:
    """A URL.

    Args:
        storage: of the URL.
        on_tick: called while uploads are waited for; may raise.
    """

    def __init__(self, storage: Storage, on_tick: Callable[[int], None]) -> None:
        self.storage, self.on_tick = storage, on_tick
        self.pool = ThreadPoolExecutor(UPLOADS, "upload")
        self.waiting: set[Future[None]] = set()

    def put(self, made: Path, name: str) -> None:
        """Begin to upload a file, which is removed here when it is there."""
        if made.exists():
            self.wait_for(MAX_WAITING - 1)
            self.waiting.add(self.pool.submit(self.upload, made, name))

    def upload(self, made: Path, name: str) -> None:
        """Upload a file, and remove it here."""
        self.storage.write(name, made)
        made.unlink()

    def wait_for(self, most: int) -> None:
        """Wait until at most so many uploads are unfinished.

        Raises:
            BuildStopped: one failed.
        """
        while self.waiting:
            enough = len(self.waiting) <= most
            done, self.waiting = wait(self.waiting, 0 if enough else POLL_S, FIRST_COMPLETED)
            try:
                for upload in done:
                    upload.result()
            except StorageError as error:
                raise BuildStopped(str(error)) from error
            if enough:
                return
            self.on_tick(0)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Yield the bytes of each (start, length) of an object; several are asked for at the same time."""
        try:
            yield from self.storage.read_ranges(name, ranges, READS)
        except StorageError as error:
            raise BuildStopped(str(error)) from error

    @cached_property
    def before(self) -> dict[str, int]:
        """The bytes of each object that was there when it was first asked."""
        return self.sizes()

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each object by its name."""
        try:
            return {one.name: one.size for one in self.storage.list()}
        except StorageError as error:
            raise BuildStopped(str(error)) from error

    def has(self, name: str, size: int) -> bool:
        """Return whether an earlier attempt has uploaded an object of this name and size."""
        return self.before.get(name) == size

    def complete(self, sizes: Mapping[str, int]) -> None:
        """Wait for all uploads, and look whether the shards are there."""
        self.wait_for(0)
        if not sizes:
            return
        found = self.sizes()
        gone = next((name for name, size in sizes.items() if found.get(name) != size), None)
        if gone is not None:
            raise DataError(
                f"{self.storage.place / gone} is gone or has changed since it was uploaded: empty "
                f"{self.storage.place}, and build again"
            )

    def close(self) -> None:
        """End the uploads that have not begun, and wait for the others, which try nothing again."""
        self.storage.stop.set()
        self.pool.shutdown(cancel_futures=True)


@contextmanager
def open_target(out: Place, folder: Path, on_tick: Callable[[int], None]) -> Iterator[Target]:
    """Open the target of a build.

    Args:
        out: as the user named it.
        folder: the local folder that the build works in.
        on_tick: called while uploads are waited for; may raise.
    """
    if not isinstance(out, Url):
        yield LocalTarget(folder)
        return
    target = RemoteTarget(open_storage(out), on_tick)
    try:
        yield target
    finally:
        target.close()


class EarlyShards:
    """Puts training shards while others are being made: a name is known when all tasks before it are done.

    Args:
        target: where they go.
        work: the folder of the parts.
        done: number and training samples of the tasks that are finished.
        first: the number of the first shard.
    """

    def __init__(self, target: Target, work: Path, done: Iterable[tuple[int, int]], first: int) -> None:
        self.target, self.work = target, work
        self.samples = dict(done)  # of finished tasks behind an unfinished one
        self.task, self.shard = 0, first  # the first unfinished task, and the number of its shard
        self.put_known()

    def add(self, task: int, samples: int) -> None:
        """Take note of a finished task."""
        self.samples[task] = samples
        self.put_known()

    def put_known(self) -> None:
        """Put the shards whose name is known now."""
        while (samples := self.samples.pop(self.task, None)) is not None:
            if samples:
                self.target.put(part_path(self.work, TRAIN, self.task), shard_name(SPLITS[TRAIN], self.shard))
                self.shard += 1
            self.task += 1


def early_shards(target: Target, build_db: BuildDb, work: Path, deduplicate: str) -> Callable[[int, int], None]:
    """Return what is told the number and the training samples of each task that is finished.

    Where samples will be left out, or the target is a folder, shards wait until all are made.
    """
    if deduplicate != "none" or isinstance(target, LocalTarget):
        return lambda task, samples: None
    return EarlyShards(target, work, build_db.trained(), build_db.read_fact("first_shard") or 0).add
