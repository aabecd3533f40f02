"""Where a reader gets the bytes of samples from: local shards, or (remote_shards.py) those of a bucket."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from shards.dataset.order import Order
from shards.dataset.splits import Split

OPEN_FILES = 64  # per thread; a window of the order may touch more shards than a process can open


class SampleBytes(NamedTuple):
    """Where the image of a sample is."""

    shard: int
    offset: int
    size: int
    image_hash: int


class ShardFiles(Protocol):
    """The shards of a split."""

    def read(self, sample: SampleBytes) -> bytes:
        """Return the bytes of a sample's image, or what is there instead of them.

        Raises:
            OSError: the shard cannot be read.
            StorageError: it is remote, and cannot be read now.
        """

    def announce(self, samples: Sequence[SampleBytes]) -> None:
        """Say which samples are read soon."""

    def follow(self, order: Order, position: int, until: int) -> None:
        """Say which position of an order is read next, and at which one the run ends."""


class OpenFiles(threading.local):
    """The descriptors of the shards that a thread has open, in the order of their last use."""

    def __init__(self) -> None:
        self.descriptors: OrderedDict[int, int] = OrderedDict()

    def __call__(self, shard: int, path_of: Callable[[int], Path]) -> int:
        """Return a descriptor of a shard; if too many are open, the least recently used one is closed."""
        if shard in self.descriptors:
            self.descriptors.move_to_end(shard)
            return self.descriptors[shard]
        # Only those of this thread: from another one's, it may be reading just now.
        if len(self.descriptors) >= OPEN_FILES:
            os.close(self.descriptors.popitem(last=False)[1])
        self.descriptors[shard] = os.open(path_of(shard), os.O_RDONLY | os.O_CLOEXEC)
        return self.descriptors[shard]

    def __del__(self) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)


class LocalShards:
    """Shards in a folder.

    Args:
        folder: where they are.
        split: whose shards are read.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        self.folder, self.split, self.files = folder, split, OpenFiles()

    def read(self, sample: SampleBytes) -> bytes:
        """Return the bytes of a sample's image.

        Raises:
            OSError: the shard cannot be read.
        """
        return os.pread(self.files(sample.shard, self.path_of), sample.size, sample.offset)

    def announce(self, samples: Sequence[SampleBytes]) -> None:
        """Do nothing: a local disk answers at once."""

    def follow(self, order: Order, position: int, until: int) -> None:
        """Do nothing."""

    def path_of(self, shard: int) -> Path:
        """Return the path of a shard."""
        return self.folder / self.split.shard_name(shard)
