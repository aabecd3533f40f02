"""Copies the shards that the plan wants into the cache of the node, ahead of their use."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from shards.dataset.file_cache import FileCache, Filled, Needs
from shards.dataset.order import Order
from shards.dataset.shard_plan import Need, shards_to_copy
from shards.dataset.splits import Shard, Split
from shards.dataset.threads import Threads
from shards.storage.errors import StorageError
from shards.storage.storage import Storage

log = logging.getLogger(__name__)

COPIERS = 4  # shards that a process copies at the same time: some are checked while others arrive
BLOCKS_AHEAD = 3  # requests of a copy at the same time
TRIES = 2  # of a copy that arrives damaged
AGAIN_S = 5.0  # a copy that failed because of the network is not tried again before
MARK_S = 20.0  # between two marks that a file is in use
POLL_S = 0.02


class ShardCopier:
    """Keeps the cache filled with what is wanted next.

    Args:
        storage: of the shards; it should give up early, so that readers are not kept waiting.
        cache: of the node.
        split: whose shards are read.
        note: says something once.
    """

    def __init__(self, storage: Storage, cache: FileCache, split: Split, note: Callable[[str, str], None]) -> None:
        self.storage, self.cache, self.split, self.note = storage, cache, split, note
        self.sizes = np.array(split.columns["bytes"], dtype=np.int64)
        self.need, self.needs, self.wanted = Need((), 0, 0), Needs(), frozenset[int]()
        self.failed: dict[int, float] = {}  # until when a shard is not tried
        self.tries: dict[int, int] = {}
        self.here: set[int] = set()
        self.lock, self.marked = threading.Lock(), 0.0
        self.copiers, self.blocks = Threads(COPIERS, "shard copier"), Threads(COPIERS * BLOCKS_AHEAD, "read blocks")
        self.running = False

    def follow(self, order: Order, position: int, until: int) -> None:
        """Plan for the samples from `position` on; quick, unless a new window begins there."""
        if self.need.since <= position < self.need.until:
            return
        need = shards_to_copy(order, position, until, self.sizes, self.cache.limit)
        names = self.split.columns["sha256"]
        # Those of this epoch that are not wanted now come again in the next one.
        rank = {names[shard]: n for n, shard in enumerate(order.epoch(position // order.samples + 1).shards.tolist())}
        keep = frozenset(names[shard] for shard in need.shards)
        with self.lock:
            self.need, self.needs, self.wanted = need, Needs(keep, rank), frozenset(need.shards)
            self.failed, self.tries = {}, {}
            self.here &= self.wanted
        if need.shards and not self.running:
            self.running = True
            for _ in range(COPIERS):
                self.copiers.run(self.work)

    def wait_for(self, shard: int) -> bool:
        """Wait for a shard, and return whether it is in the cache; False: it is not going to be."""
        while self.is_promised(shard):
            if shard in self.here or self.cache.has(self.split.columns["sha256"][shard]):
                self.here.add(shard)
                return True
            if self.copiers.stop.wait(POLL_S):
                return False
        return False

    def is_promised(self, shard: int) -> bool:
        """Return whether a shard is in the cache, or will be soon."""
        return shard in self.wanted and self.failed.get(shard, 0.0) < time.monotonic()

    def lost(self, shard: int) -> None:
        """Note that a shard is not in the cache any more."""
        self.here.discard(shard)

    def work(self) -> None:
        """Copy what is wanted first, until the process ends."""
        while not self.copiers.stop.is_set():
            if not any(self.copy(shard) for shard in self.need.shards if self.is_missing(shard)):
                self.copiers.stop.wait(POLL_S)
            if time.monotonic() > self.marked + MARK_S:
                self.marked = time.monotonic()
                self.cache.mark_used(self.needs.keep)

    def is_missing(self, shard: int) -> bool:
        """Return whether a shard is to be copied, as far as this process knows."""
        return self.is_promised(shard) and shard not in self.here

    def copy(self, shard: int) -> bool:
        """Copy a shard, and return whether anything was done."""
        known = self.split.shard(shard)
        if self.cache.has(known.sha256):
            self.here.add(shard)
            return False
        try:
            filled = self.cache.fill(known.sha256, known.bytes, self.read_blocks(known), self.needs)
        except (StorageError, OSError) as error:
            log.debug("%s could not be copied: %s", known.name, error)
            self.failed[shard] = time.monotonic() + AGAIN_S
            return False
        if filled is Filled.THERE:
            self.here.add(shard)
        elif filled is Filled.NO_ROOM:
            self.note(
                "room", f"there is no room for copies of shards in {self.cache.folder}: samples are read one by one"
            )
            self.failed[shard] = time.monotonic() + AGAIN_S
        elif filled is Filled.DAMAGED:
            self.tries[shard] = self.tries.get(shard, 0) + 1
            # Not for ever: its readers find out which of its samples are damaged.
            self.failed[shard] = time.monotonic() + AGAIN_S if self.tries[shard] < TRIES else float("inf")
        return filled is not Filled.BUSY

    def read_blocks(self, shard: Shard) -> Iterator[bytes]:
        """Yield a shard's bytes; several blocks are on their way at the same time."""
        asked = self.storage.block_requests(shard.name, shard.bytes)
        ahead = deque(self.blocks.submit(ask) for ask in islice(asked, BLOCKS_AHEAD))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(self.blocks.submit(ask) for ask in islice(asked, 1))
