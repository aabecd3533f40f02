"""A shard of the dataset that a build adds to: it is taken over as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from shards.building.old_files import copy_file, damage, read_ranges
from shards.dataset.facts import parse_facts
from shards.dataset.files import LABELS
from shards.dataset.index import Index
from shards.dataset.splits import Shard
from shards.images.encode import ENCODINGS
from shards.images.fingerprint import PRINT, fingerprint


@dataclass(frozen=True)
class KeptShard:
    """A shard that is taken over as it is."""

    index: Index
    """Of the old dataset."""
    labels: npt.NDArray[np.void] | None
    """The rows of its labels.npy; None: it has none."""
    split: int
    shard: Shard
    first: int
    """The row of its first sample in the table there."""

    @property
    def name(self) -> str:
        """Its file name, there and here."""
        return self.shard.name

    @property
    def samples(self) -> int:
        """Samples in the shard."""
        return self.shard.samples

    def rows(self) -> npt.NDArray[np.void]:
        """Return the table rows of the samples: (samples,) of index.ROW."""
        return self.index.table[self.first : self.first + self.samples]

    def label_rows(self, row: np.dtype[np.void]) -> npt.NDArray[np.void]:
        """Return the rows of labels.npy of the samples, which have this type.

        Raises:
            DataError: they have another one.
        """
        if self.labels is None or self.labels.dtype != row or len(self.labels) != len(self.index.table):
            raise damage(self.index.path, LABELS)
        return self.labels[self.first : self.first + self.samples]

    def regions(self, chosen: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """Return first byte and length of the regions of samples; of the last one with the end mark."""
        starts = self.rows()["start"].astype(np.int64)
        lengths = np.diff(starts, append=self.shard.bytes)
        return [(int(starts[sample]), int(lengths[sample])) for sample in chosen]

    def read(
        self, chosen: npt.NDArray[np.int64], regions: Iterator[bytes]
    ) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        """Yield the name of the file and the pixels of samples, from the bytes of their regions.

        Raises:
            DataError: they are damaged.
        """
        for row, region in zip(self.rows()[chosen], regions, strict=True):
            image = region[int(row["offset"]) - int(row["start"]) :][: int(row["size"])]
            if xxhash.xxh3_64_intdigest(image) != int(row["image_hash"]):
                raise damage(self.index.path, self.name)
            pixels = np.empty((*self.index.size, self.index.channels), np.uint8)
            ENCODINGS[self.index.encoding].decode(image, pixels)
            try:
                name = str(parse_facts(region, self.name)["file"])
            except (ValueError, LookupError, TypeError) as error:
                raise damage(self.index.path, self.name) from error
            yield name, pixels

    def prints(self) -> npt.NDArray[np.void]:
        """Return the fingerprints of the samples: (samples,) of fingerprint.PRINT."""
        chosen = np.arange(self.samples)
        read = self.read(chosen, read_ranges(self.index.path, self.name, self.regions(chosen)))
        return np.array([fingerprint(pixels) for _, pixels in read], PRINT)

    def bring(self, path: Path) -> None:
        """Make a local file of this shard: a hard link where that can be, else a copy that is compared with its hash.

        Raises:
            DataError: it is damaged.
            OSError: it cannot be read or written.
        """
        path.unlink(missing_ok=True)
        place = self.index.path
        if isinstance(place, Path):
            with suppress(OSError):  # another file system, or one without links
                os.link(place / self.name, path)
        if not path.exists():
            copy_file(place, self.name, self.shard.sha256, path)
        elif path.stat().st_size != self.shard.bytes:
            path.unlink()
            raise damage(place, self.name)
