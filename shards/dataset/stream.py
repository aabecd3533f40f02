"""Read samples by number, and stream them in a planned order through a webdataset pipeline.

Each sample is one positioned read, checked against its hash in the index. A damaged sample is replaced by the next
intact one of its split. That choice depends only on the index and the damage, so every rank and every resumed run
makes the same one.
"""

from __future__ import annotations

import math
import shlex
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import webdataset
import xxhash

from shards.dataset.decoder import decoder_of
from shards.dataset.index import Index
from shards.dataset.labels import LabelReader, Labels
from shards.dataset.order import Order
from shards.dataset.shard_files import LocalShards, SampleBytes, ShardFiles
from shards.errors import DataError
from shards.storage.place import Url

Planned = TypeVar("Planned")
Made = TypeVar("Made")
PREFETCH = 4  # micro-batches per worker thread that are prepared ahead


@dataclass(frozen=True)
class Samples:
    """The decoded samples of one micro-batch."""

    images: npt.NDArray[np.uint8]  # (n, h, w, c)
    labels: Labels  # (n, values)
    planned: npt.NDArray[np.int64]  # (n,) the numbers that the order asked for
    used: npt.NDArray[np.int64]  # (n,) the numbers that were read: differ where the planned sample is damaged


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
        columns: the labels to read; none: the one in the table.

    Raises:
        DataError: there are no such labels, or they cannot be read.
    """

    def __init__(
        self, index: Index, split: str, on_damage: Callable[[int, str], None], columns: Sequence[str] = ()
    ) -> None:
        self.index, self.split, self.on_damage = index, index.splits[split], on_damage
        self.decode, self.labels = decoder_of(index), LabelReader(index, columns)
        self.first = np.concatenate([[0], np.cumsum(self.split.shard_samples)])  # each shard's first sample
        self.buffers = ImageBuffers()
        self.files = open_shards(index, split)
        self.remote = isinstance(index.shards_at, Url)
        self.damaged: set[int] = set()

    def __call__(self, planned: npt.NDArray[np.int64]) -> Samples:
        """Read the samples with these numbers, (n,) from 0.

        Raises:
            DataError: no sample of the split can be read.
        """
        images = self.buffers((len(planned), *self.index.size, self.index.channels))
        used = planned.copy()
        samples = self.locate(planned)
        self.files.announce(samples)
        for i, sample in enumerate(samples):
            if not self.read(images[i], int(planned[i]), sample):
                used[i] = self.replace(int(planned[i]), images[i])
        # Those of the samples that were read, whatever was planned.
        return Samples(images, self.labels(self.split.first + used), planned, used)

    def follow(self, order: Order, position: int, until: int) -> None:
        """Say which position of an order is read next, and at which one the run ends: shards come ahead."""
        self.files.follow(order, position, until)

    def announce(self, planned: npt.NDArray[np.int64]) -> None:
        """Say which samples are read soon."""
        if self.remote:
            self.files.announce(self.locate(planned))

    def locate(self, planned: npt.NDArray[np.int64]) -> list[SampleBytes]:
        """Return where the samples with these numbers are."""
        rows = self.index.table[self.split.first + planned]
        shards = np.searchsorted(self.first, planned, side="right") - 1
        fields = (rows[name].tolist() for name in ("offset", "size", "image_hash"))
        return [SampleBytes(*place) for place in zip(shards.tolist(), *fields, strict=True)]

    def read(self, out: npt.NDArray[np.uint8], number: int, sample: SampleBytes) -> bool:
        """Read one sample into `out`, and return whether it is intact."""
        if number in self.damaged:
            return False
        try:
            if sample.offset + sample.size > self.split.columns["bytes"][sample.shard]:
                raise ValueError("its row of the table leads behind the end of its shard")
            data = self.files.read(sample)
            # Before the hash, which would be wrong as well and say less.
            if len(data) != sample.size:
                raise ValueError(f"the shard ends {sample.size - len(data)} bytes too early")
            if xxhash.xxh3_64_intdigest(data) != sample.image_hash:
                raise ValueError("its bytes are not those that the index knows")
            self.decode(data, out)
            return True
        except (OSError, ValueError) as error:
            # Told once, and never read again, however many epochs come by here.
            self.damaged.add(number)
            self.on_damage(number, f"{self.split.shard_name(sample.shard)}: {error}")
            return False

    def replace(self, sample: int, out: npt.NDArray[np.uint8]) -> int:
        """Read the next intact sample into `out`, and return its number.

        Raises:
            DataError: there is none.
        """
        # By number, so that every rank and every run puts the same one in its place.
        for distance in range(1, self.split.samples):
            other = (sample + distance) % self.split.samples
            if self.read(out, other, self.locate(np.array([other]))[0]):
                return other
        command = f"python -m shards verify {shlex.quote(str(self.index.path))}"
        raise DataError(f"no sample in {self.index.path} can be read; run: {command}")


def open_shards(index: Index, split: str) -> ShardFiles:
    """Return where the bytes of a split's samples come from."""
    if not isinstance(index.shards_at, Url):
        return LocalShards(index.shards_at, index.splits[split])
    from shards.dataset.remote_shards import RemoteShards  # and with it obstore, which local data does not need

    return RemoteShards(index, split)


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
