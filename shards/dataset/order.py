"""The order of the samples: a keyed, two-level permutation that needs no memory of its own.

Epoch e visits each of the N samples once. The shards are permuted; each run of `window` consecutive shards of that
permutation is a window; within a window the samples are permuted. Both permutations are functions of (seed, epoch), so
the sample at any position of the infinite stream is found without visiting those before it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

ROUNDS = 8  # four are enough for Luby and Rackoff's bound; small domains mix better with eight


@lru_cache(maxsize=1024)
def round_keys(*key: int | str) -> tuple[int, ...]:
    """Return one 64-bit word per round, derived from the parts of the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=64).digest()
    return tuple(int.from_bytes(digest[i : i + 8], "little") for i in range(0, 8 * ROUNDS, 8))


def mix(words: Words, key: int) -> Words:
    """Hash 64-bit words with a key (the finalizer of SplitMix64; Steele, Lea and Flood 2014)."""
    words = (words + np.uint64(key)) * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def permute(positions: Positions, n: int, *key: int | str) -> Positions:
    """Send each position in [0, n) to its place under the permutation of [0, n) that `key` names.

    A generalized Feistel network on [0, a) x [0, b) with a·b just above n (Black and Rogaway 2002). A result of n or
    more is permuted again until it is below n (cycle walking), which keeps the map a permutation of [0, n).
    """
    keys = round_keys(*key)
    # Nearly square, with a b hardly above n: then few positions have to be permuted again.
    a = isqrt(n - 1) + 1
    b = -(-n // a)
    out = positions.astype(np.uint64)
    outside = np.arange(len(out))
    while len(outside):
        left, right = np.divmod(out[outside], np.uint64(b))
        for i, round_key in enumerate(keys):
            if i % 2:
                right = (right + mix(left, round_key) % np.uint64(b)) % np.uint64(b)
            else:
                left = (left + mix(right, round_key) % np.uint64(a)) % np.uint64(a)
        out[outside] = left * np.uint64(b) + right
        outside = outside[out[outside] >= n]
    return out.astype(np.int64)


@dataclass(frozen=True)
class Epoch:
    """The order of the shards in one epoch."""

    shards: Positions  # (shards,) the permutation
    starts: Positions  # (shards + 1,) position in the epoch at which each permuted shard's block starts
    windows: Positions  # (windows + 1,) the index into `shards` at which each window starts


class Order:
    """Maps positions of the infinite stream to samples.

    Args:
        shard_samples: (shards,) the number of samples in each shard, all positive.
        seed: names the order; any integer.
        window: shards per window; 0 means all of them, which makes each epoch one uniform permutation.

    Raises:
        ValueError: there is no sample, or the window is negative.
    """

    def __init__(self, shard_samples: npt.ArrayLike, seed: int, window: int = 0) -> None:
        self.shard_samples = np.asarray(shard_samples, dtype=np.int64)
        self.first = np.concatenate([[0], np.cumsum(self.shard_samples)])  # each shard's first sample
        self.samples = int(self.first[-1])
        if self.samples == 0 or (self.shard_samples <= 0).any():
            raise ValueError("an order needs at least one shard, and at least one sample in each")
        if window < 0:
            raise ValueError(f"order_window must be 0 (all shards) or positive, but got {window}")
        self.seed = seed
        self.window = window or len(self.shard_samples)
        self.epoch = lru_cache(maxsize=2)(
            self.plan_epoch
        )  # a batch crosses at most one end of an epoch, unless N is tiny

    def plan_epoch(self, epoch: int) -> Epoch:
        """Permute the shards for one epoch; memory and time grow with the shards, never with the samples."""
        n = len(self.shard_samples)
        shards = permute(np.arange(n), n, self.seed, "shards", epoch)
        starts = np.concatenate([[0], np.cumsum(self.shard_samples[shards])])
        return Epoch(shards, starts, np.append(np.arange(0, n, self.window), n))

    def __call__(self, positions: npt.ArrayLike) -> Positions:
        """Return the sample, in [0, N), at each position (any shape of non-negative integers) of the stream."""
        epochs, within = np.divmod(np.asarray(positions, dtype=np.int64), self.samples)
        samples = np.empty_like(within)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            samples[here] = self.within_epoch(int(epoch), within[here])
        return samples

    def within_epoch(self, epoch: int, positions: Positions) -> Positions:
        """Return the sample at each position (flat) of one epoch."""
        plan = self.epoch(epoch)
        starts = plan.starts[plan.windows]  # the position at which each window starts
        window = np.searchsorted(starts, positions, side="right") - 1
        samples = np.empty_like(positions)
        for w in np.unique(window):
            here = window == w
            size = int(starts[w + 1] - starts[w])
            place = starts[w] + permute(positions[here] - starts[w], size, self.seed, "samples", epoch, int(w))
            block = np.searchsorted(plan.starts, place, side="right") - 1
            samples[here] = self.first[plan.shards[block]] + place - plan.starts[block]
        return samples
