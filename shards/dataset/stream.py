"""Read samples by number, and stream them in a planned order through a webdataset pipeline.

Each sample is one positioned read, checked against its hash in the index. A damaged sample is replaced by the next
intact one of its split. That choice depends only on the index and the damage, so every rank and every resumed run
makes the same one.
"""

from __future__ import annotations

import math
import os
import shlex
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import webdataset
import xxhash

from shards.dataset.index import DataError, Index, shard_name
from shards.images.encode import ENCODINGS

Planned = TypeVar("Planned")
Made = TypeVar("Made")
OPEN_FILES = 64  # per thread; a window of the order may touch more shards than a process can open
PREFETCH = 4  # micro-batches per worker thread that are prepared ahead


@dataclass(frozen=True)
class Samples:
    """The decoded samples of one micro-batch."""

    images: npt.NDArray[np.uint8]  # (n, h, w, c)
    labels: npt.NDArray[np.int64]  # (n,), -1: none
    planned: npt.NDArray[np.int64]  # (n,) the numbers that the order asked for
    used: npt.NDArray[np.int64]  # (n,) the numbers that were read: differ where the planned sample is damaged


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


class ImageBuffers:
    """Memory for the pictures of micro-batches, used again when nobody has them any more.

    New memory comes from the kernel as pages of zeros, one after the other: at 256 px that takes a tenth of the time of
    decoding.
    """

    def __init__(self) -> None:
        self.free: list[bytearray] = []

    def __call__(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Return an array that holds anything."""
        numel = math.prod(shape)
        try:
            buffer = self.free.pop()
        except IndexError:  # asked before, another thread might take it meanwhile
            buffer = bytearray()
        if len(buffer) != numel:
            buffer = bytearray(numel)
            self.free.clear()  # those of another size are not wanted any more
        images = np.frombuffer(buffer, dtype=np.uint8)
        # Views keep this array, as it does not own its memory.
        weakref.finalize(images, self.free.append, buffer)
        return images.reshape(shape)


class Reader:
    """Reads samples of one split by their number.

    Args:
        index: the dataset.
        split: "train" or "holdout".
        on_damage: called once for each damaged sample, with its number and what is wrong with it.
    """

    def __init__(self, index: Index, split: str, on_damage: Callable[[int, str], None]) -> None:
        self.index, self.split, self.on_damage = index, index.splits[split], on_damage
        self.decode = ENCODINGS[index.encoding].decode
        self.first = np.concatenate([[0], np.cumsum(self.split.shard_samples)])  # each shard's first sample
        self.files, self.buffers = OpenFiles(), ImageBuffers()
        self.damaged: set[int] = set()

    def __call__(self, planned: npt.NDArray[np.int64]) -> Samples:
        """Read the samples with these numbers, (n,) from 0.

        Raises:
            DataError: no sample of the split can be read.
        """
        images = self.buffers((len(planned), *self.index.size, self.index.channels))
        used = planned.copy()
        rows = self.index.table[self.split.first + planned]
        shards = np.searchsorted(self.first, planned, side="right") - 1
        fields = (rows[name].tolist() for name in ("offset", "size", "image_hash"))
        for i, place in enumerate(zip(shards.tolist(), *fields, strict=True)):
            if not self.read(images[i], int(planned[i]), *place):
                used[i] = self.replace(int(planned[i]), images[i])
        labels = self.index.table["label"][self.split.first + used].astype(np.int64)
        return Samples(images, labels, planned, used)

    def read(
        self, out: npt.NDArray[np.uint8], sample: int, shard: int, offset: int, size: int, image_hash: int
    ) -> bool:
        """Read one sample into `out`, and return whether it is intact."""
        if sample in self.damaged:
            return False
        try:
            data = os.pread(self.files(shard, self.path_of), size, offset)
            # Before the hash, which would be wrong as well and say less.
            if len(data) != size:
                raise ValueError(f"the shard ends {size - len(data)} bytes too early")
            if xxhash.xxh3_64_intdigest(data) != image_hash:
                raise ValueError("its bytes are not those that the index knows")
            self.decode(data, out)
            return True
        except (OSError, ValueError) as error:
            # Told once, and never read again, however many epochs come by here.
            self.damaged.add(sample)
            self.on_damage(sample, f"{self.path_of(shard).name}: {error}")
            return False

    def path_of(self, shard: int) -> Path:
        """Return the path of a shard of the split."""
        return self.index.path / shard_name(self.split.name, shard)

    def replace(self, sample: int, out: npt.NDArray[np.uint8]) -> int:
        """Read the next intact sample into `out`, and return its number.

        Raises:
            DataError: there is none.
        """
        # By number, so that every rank and every run puts the same one in its place.
        for distance in range(1, self.split.samples):
            other = (sample + distance) % self.split.samples
            row = self.index.table[self.split.first + other]
            shard = int(np.searchsorted(self.first, other, side="right")) - 1
            if self.read(out, other, shard, int(row["offset"]), int(row["size"]), int(row["image_hash"])):
                return other
        command = f"python -m shards verify {shlex.quote(str(self.index.path))}"
        raise DataError(f"no sample in {self.index.path} can be read; run: {command}")


def stream_planned(make: Callable[[Planned], Made], plan: Iterable[Planned], workers: int) -> webdataset.DataPipeline:
    """Return the pipeline that yields what is made of each item of a plan, in the plan's order.

    Args:
        make: reads and decodes a micro-batch, such as a `Reader`, which takes numbers of samples, (n,).
        plan: what `make` takes; it may be endless.
        workers: threads that make items ahead; 0: the caller's thread makes one when it is needed.
    """

    def made(items: Iterator[Planned]) -> Iterator[Made]:
        if not workers:
            yield from map(make, items)
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as threads:
            ahead = deque(threads.submit(make, item) for item in islice(items, PREFETCH * workers))
            while ahead:
                yield ahead.popleft().result()  # in the plan's order, whichever thread is done first
                ahead.extend(threads.submit(make, item) for item in islice(items, 1))

    return webdataset.DataPipeline(lambda: iter(plan), made)
