"""Find nearly equal pictures by their fingerprints.

The pictures are taken in the order of their names. Each joins the first earlier picture that it is nearly equal to and
that has joined no other one; so each one that is left out is nearly equal to one that stays, and chains of small
differences do not grow. Candidates come from an index of the four quarters of the hash: two hashes that differ in at
most 3 bits have an equal quarter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from shards.images.fingerprint import MAX_BITS, agree

QUARTERS, QUARTER_BITS = MAX_BITS + 1, 16


class HashIndex:
    """Hashes that can be looked up by nearly equal ones."""

    def __init__(self) -> None:
        self.buckets: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(QUARTERS)]
        self.known: set[int] = set()

    def add(self, number: int) -> None:
        """Add a hash."""
        if number not in self.known:
            self.known.add(number)
            for bucket, quarter in zip(self.buckets, quarters(number), strict=True):
                bucket[quarter].append(number)

    def near(self, number: int) -> set[int]:
        """Return the hashes that differ in at most MAX_BITS bits."""
        return {
            other
            for bucket, quarter in zip(self.buckets, quarters(number), strict=True)
            for other in bucket.get(quarter, ())
            if (other ^ number).bit_count() <= MAX_BITS
        }


def quarters(number: int) -> Iterator[int]:
    """Yield the four quarters of a hash."""
    for quarter in range(QUARTERS):
        yield number >> QUARTER_BITS * quarter & (1 << QUARTER_BITS) - 1


def find_near(prints: npt.NDArray[np.void], staying: int = 0) -> npt.NDArray[np.int64]:
    """Return for each picture the first one that it is nearly equal to; itself, where there is none: (n,).

    Args:
        prints: (n,) of fingerprint.PRINT, in the order of the names; may be mapped from a file.
        staying: so many pictures, the first ones, join no other one.
    """
    first = np.arange(len(prints))
    index, leaders = HashIndex(), defaultdict[int, list[int]](list)  # by hash: pictures that have joined no other one
    for number, print_hash in enumerate(prints["hash"].tolist()):
        near = index.near(print_hash) if number >= staying else ()
        if found := sorted(leader for other in near for leader in leaders[other]):
            same = agree(prints["cells"][number], prints["cells"][found])
            if same.any():
                first[number] = found[int(np.argmax(same))]
                continue
        index.add(print_hash)
        leaders[print_hash].append(number)
    return first
