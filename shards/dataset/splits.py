"""The shards of both sides of the hold-out, as an index has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    samples: int
    bytes: int
    sha256: str


def shard_name(split: str, number: int) -> str:
    """Return the file name of a split's shard."""
    return f"{split}-{number:06d}.tar"


@dataclass(frozen=True)
class Split:
    """The shards of the training set ("train"), or of the hold-out set ("holdout").

    There may be millions, so `Shard` objects are made only when `shards` is read.
    """

    name: str
    first: int  # the row of its first sample in the table
    samples: int
    columns: Mapping[str, Sequence[Any]]
    """"samples", "bytes" and "sha256" of each shard, and "names" where they are others' (shards/indexing)."""

    @cached_property
    def shard_samples(self) -> npt.NDArray[np.int64]:
        """The samples in each shard: (shards,)."""
        return np.array(self.columns["samples"], dtype=np.int64)

    def shard_name(self, number: int) -> str:
        """Return the name of one shard."""
        return str(self.columns["names"][number]) if "names" in self.columns else shard_name(self.name, number)

    def shard_of(self, sample: int) -> int:
        """Return the number of the shard that a sample of the split is in."""
        return int(np.searchsorted(np.cumsum(self.shard_samples), sample, side="right"))

    def shard(self, number: int) -> Shard:
        """Return one shard."""
        samples, size, sha256 = (self.columns[name][number] for name in ("samples", "bytes", "sha256"))
        return Shard(self.shard_name(number), samples, size, sha256)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The shards, in order.

        Raises:
            ValueError: the columns differ in length.
        """
        columns = (self.columns[name] for name in ("samples", "bytes", "sha256"))
        return tuple(Shard(self.shard_name(i), *row) for i, row in enumerate(zip(*columns, strict=True)))


def read_splits(content: Mapping[str, Any]) -> Iterator[tuple[str, Split]]:
    """Yield the splits that index.json describes, by name."""
    first = 0
    for name, described in content["splits"].items():
        yield name, Split(name, first, described["samples"], described["shards"])
        first += described["samples"]
