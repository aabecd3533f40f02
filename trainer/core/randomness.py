"""Randomness without state: every draw is a function of its full key.

NumPy's Philox counter-based generator (Salmon et al. 2011) takes a key of 128 bits, where torch's CPU generator keeps
only 32 bits of its seed. Nothing here is checkpointed, and nothing can be lost.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch


def philox(*key: int | str) -> np.random.Generator:
    """Return the generator that `key`, a tuple of whole numbers and names, stands for."""
    # repr tells 1 from "1", and ("a", "b") from ("ab",); 16 bytes fill the key.
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def normal(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Draw a float32 CPU tensor from N(0, 1)."""
    # On the CPU: CUDA's generators draw other numbers on other devices.
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def uniform(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Draw a float32 CPU tensor from U[0, 1)."""
    return torch.from_numpy(rng.random(shape, dtype=np.float32))


@dataclass(frozen=True)
class Draws:
    """What one run draws while it trains.

    A draw is keyed by the run's seed, the number of rollbacks before it (so that training does not walk into the same
    NaN twice), its purpose, the pictures seen before its update, and its micro-batch: never by a rank.
    """

    seed: int
    rollbacks: int

    def rng(self, purpose: str, images_seen: int, micro_batch: int) -> np.random.Generator:
        """Return the generator for one purpose in one micro-batch of one update."""
        return philox(self.seed, self.rollbacks, purpose, images_seen, micro_batch)

    def flips(self, images_seen: int, micro_batch: int, size: int) -> torch.Tensor:
        """Draw which pictures of one micro-batch are mirrored: (size,), bool, on the CPU."""
        return torch.from_numpy(self.rng("flip", images_seen, micro_batch).random(size) < 0.5)
