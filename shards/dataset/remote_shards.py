"""Read samples of shards in a bucket: from the cache of this node, else by ranges from the bucket.

Whatever way its bytes come, a sample is checked against its hash in the index. A copy that is damaged is removed and
read again; only what is damaged in the bucket itself is given to the reader as it is, so that it is replaced as in
local data. A bucket that cannot be reached, or whose index is another by now, ends the reading, and nothing is
replaced.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

import xxhash

from shards.dataset.file_cache import FileCache
from shards.dataset.files import INDEX
from shards.dataset.index import Index
from shards.dataset.order import Order
from shards.dataset.shard_copier import ShardCopier
from shards.dataset.shard_files import SampleBytes
from shards.dataset.threads import Threads
from shards.errors import DataError
from shards.storage.errors import NotFound
from shards.storage.storage import open_storage

log = logging.getLogger(__name__)

CONNECTIONS = 32  # samples that a process reads by ranges at the same time
ANNOUNCED = 8192  # samples at most that are read ahead of use
COPY_PATIENCE_S = 5.0
TRIES = 3  # of a sample that arrives damaged


class RemoteShards:
    """The shards of a split in a bucket.

    Args:
        index: of the dataset.
        split: its name.
    """

    def __init__(self, index: Index, split: str) -> None:
        self.index, self.split, settings = index, index.splits[split], index.cache
        self.cache = FileCache(settings.folder, int(settings.gb * 1e9))
        self.storage = open_storage(index.shards_at, settings.patience_s)
        hurried = open_storage(index.shards_at, min(COPY_PATIENCE_S, settings.patience_s))
        self.copier = ShardCopier(hurried, self.cache, self.split, self.note)
        self.threads = Threads(CONNECTIONS, "read samples")
        self.storage.stop, hurried.stop = self.threads.stop, self.copier.blocks.stop
        self.ahead: OrderedDict[tuple[int, int], Future[bytes]] = OrderedDict()
        self.lock, self.noted = threading.Lock(), set[str]()
        # Single samples are kept only if all of them can be: else one would push out another for ever.
        total = sum(sum(one.columns["bytes"]) for one in index.splits.values())
        self.keeps_samples = total <= self.cache.limit
        self.planned = False

    def name(self, shard: int) -> str:
        """Return the name of a shard."""
        return self.split.shard_name(shard)

    def follow(self, order: Order, position: int, until: int) -> None:
        """Say which position of an order is read next, and at which one the run ends."""
        self.copier.follow(order, position, until)
        if not (self.copier.need.shards or self.keeps_samples):
            self.note(
                "window",
                f"the cache of {self.cache.limit / 1e9:g} GB (--cache-gb) holds no window of the order of the shards: "
                "samples are read one by one in each epoch; a new run may have a smaller --order-window",
            )

    def announce(self, samples: Sequence[SampleBytes]) -> None:
        """Begin to read samples that are not in the cache, and are not going to be."""
        for sample in samples:
            key = sample.shard, sample.offset
            if self.copier.is_promised(sample.shard) or key in self.ahead:
                continue
            data = self.cached(sample)
            with self.lock:
                self.ahead[key] = self.threads.submit(partial(self.fetch, sample)) if data is None else known(data)
                # What was announced and never read, as after a rollback.
                if len(self.ahead) > ANNOUNCED:
                    self.ahead.popitem(last=False)[1].cancel()

    def read(self, sample: SampleBytes) -> bytes:
        """Return the bytes of a sample's image, or what the bucket has instead of them.

        Raises:
            StorageError: the bucket cannot be read.
            DataError: it holds another dataset by now.
        """
        with self.lock:
            coming = self.ahead.pop((sample.shard, sample.offset), None)
        if coming is not None:
            return coming.result()
        self.copier.wait_for(sample.shard)
        data = self.cached(sample)
        return self.fetch(sample) if data is None else data

    def cached(self, sample: SampleBytes) -> bytes | None:
        """Return a sample's bytes from the cache; None: they are not there, or not what they should be."""
        sha256 = self.split.columns["sha256"][sample.shard]
        whole, part = self.cache.read(sha256, sample.offset, sample.size)
        for data in (whole, part):
            if data is not None and xxhash.xxh3_64_intdigest(data) == sample.image_hash:
                return data
        if whole is not None:
            # It had the SHA-256 of the index when it arrived, so its disk has changed it.
            self.note(
                sha256, f"the copy of {self.name(sample.shard)} in {self.cache.folder} was damaged: it is read again"
            )
            self.cache.drop(sha256)
            self.copier.lost(sample.shard)
        return None

    def fetch(self, sample: SampleBytes) -> bytes:
        """Return a sample's bytes from the bucket; intact ones are kept in the cache, if there is room."""
        data = b""
        for _ in range(TRIES):
            data = self.storage.read_range(self.name(sample.shard), sample.offset, sample.size)
            if xxhash.xxh3_64_intdigest(data) == sample.image_hash:
                self.keep(sample, data)
                return data
        self.refuse_change(sample.shard)
        return data

    def keep(self, sample: SampleBytes, data: bytes) -> None:
        """Put a sample into the cache."""
        if self.keeps_samples and not self.copier.is_promised(sample.shard):
            sha256, size = (self.split.columns[name][sample.shard] for name in ("sha256", "bytes"))
            if not self.cache.put(sha256, size, sample.offset, data, self.copier.needs):
                self.keeps_samples = False
                self.note("room", f"there is no room for copies in {self.cache.folder}: samples are read one by one")

    def refuse_change(self, shard: int) -> None:
        """Refuse to go on with another dataset than the one that was opened.

        Raises:
            DataError: the bucket's index is another one, or a shard that was indexed in place is.
        """
        if self.index.shards_at != self.index.path:
            name = self.name(shard)
            if not self.storage.exists(name) or self.storage.head(name).size != self.split.columns["bytes"][shard]:
                raise DataError(
                    f"{self.index.shards_at / name} is not the one that was indexed: put it back, or index anew and "
                    "begin a new run"
                )
            return
        try:
            now = hashlib.sha256(self.storage.read(INDEX)).hexdigest()
        except NotFound:
            now = "gone"
        if now != self.index.hash:
            raise DataError(
                f"{self.index.path} has changed under the run: its {INDEX} is not the one that was opened; put the "
                "dataset back, or begin a new run with the new one"
            )

    def note(self, about: str, what: str) -> None:
        """Say something once."""
        if about not in self.noted:
            self.noted.add(about)
            log.warning("%s: %s", self.index.path, what)


def known(data: bytes) -> Future[bytes]:
    """Return a result that is there already."""
    future: Future[bytes] = Future()
    future.set_result(data)
    return future
