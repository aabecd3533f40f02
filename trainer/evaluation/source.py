"""Where pictures come from. Each source gives its pictures by number, so that anybody may compute any of them.

A source of a fixed set numbers its pictures by a keyed permutation: the first n are a random sample without
replacement, which is the same for every n, process and machine. What is measured has another order than what it is
measured against: in the same one, the first n of a copy of the reals would be the very pictures they are compared with.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from shards.dataset.index import INDEX, Index
from shards.dataset.order import permute
from shards.dataset.stream import Reader
from shards.images.decode import Decoding, Picture, decode
from shards.images.exclusion import REASONS, Excluded
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.sampling.sampler import Images

Rows = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]  # (n,)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MOST_PIXELS = 2 * 89_478_485  # of one picture, as in `shards build`
HOLDOUT = "holdout"  # the split's name
WHITE = (255, 255, 255)

Order = tuple[str, ...]  # what is added to the key of the permutation
OF_REALS: Order = ()
OF_FAKES: Order = ("fakes",)


class ImageSource(Protocol):
    """A set of pictures of one size."""

    @property
    def name(self) -> str:
        """Says in words what it is."""

    @property
    def key(self) -> tuple[str, ...]:
        """Names the content: equal keys, equal pictures."""

    @property
    def count(self) -> int | None:
        """How many pictures there are; None: as many as are asked for."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty: the pictures have no labels."""

    def pictures(self, rows: Rows) -> Images:
        """Return the pictures of these numbers: (n, h, w, 3)."""

    def labels(self, rows: Rows) -> Labels | None:
        """Return the classes of the pictures of these numbers; None: they have none."""


def shuffled(rows: Rows, count: int, order: Order) -> Rows:
    """Send numbers to places in a set of `count` pictures."""
    return permute(rows, count, "evaluation", *order)


class Shards:
    """A split of a folder of shards.

    Args:
        index: of the folder.
        split: "train" or "holdout".
        order: of its pictures.
    """

    def __init__(self, index: Index, split: str, order: Order = OF_REALS) -> None:
        self.index, self.split, self.order = index, index.splits[split], order
        self.name, self.key = f"{index.path} ({split})", ("shards", index.hash, split, *order)
        self.count, self.classes, self.size = self.split.samples, index.classes, index.size
        self.reader = Reader(index, split, self.refuse)

    def refuse(self, sample: int, problem: str) -> NoReturn:
        """Refuse to measure against damaged data: what replaces a picture would change the numbers.

        Raises:
            Refused: always.
        """
        raise Refused(
            f"sample {sample} of {self.name} is damaged: {problem}; "
            f"run: {command('shards', 'verify', self.index.path)}, and build the shards again, into a new folder"
        )

    def held_out(self) -> Shards | None:
        """Return the pictures that were kept out of the training, if any were."""
        return Shards(self.index, HOLDOUT) if self.index.splits[HOLDOUT].samples else None

    def pictures(self, rows: Rows) -> Images:
        """Read pictures."""
        return self.reader(shuffled(rows, self.count, self.order)).images

    def labels(self, rows: Rows) -> Labels | None:
        """Return labels, from the index alone."""
        places = self.split.first + shuffled(rows, self.count, self.order)
        return self.index.table["label"][places].astype(np.int64) if self.classes else None


class Folder:
    """The pictures of a plain folder and of all folders in it, sorted by name.

    Each is decoded as `shards build` does it: upright, sRGB, over white; then the centre square is cropped and, unless
    it has the size already, filtered with Lanczos.

    Args:
        path: the folder.
        size: height and width of the result; None: that of the first picture's centre square.
        order: of its pictures.

    Raises:
        Refused: there is no picture, or the first one cannot be decoded.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, path: Path, size: int | None = None, order: Order = OF_REALS) -> None:
        found = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        self.path, self.files = path, sorted(found, key=lambda file: file.relative_to(path).as_posix())
        if not self.files:
            raise Refused(f"{path} holds no run, no shards and no pictures ({', '.join(sorted(SUFFIXES))})")
        self.name, self.count, self.order = str(path), len(self.files), order
        self.size = self.first_size() if size is None else size
        self.key = ("folder", self.hash(), str(self.size), *order)

    def first_size(self) -> int:
        """Return the shorter side of the first picture."""
        first = decoded(self.files[0], Decoding(1, "crop", WHITE, 0, MOST_PIXELS, 1))
        return min(first.width, first.height)

    def hash(self) -> str:
        """Return the XXH3-128 of all names and bytes."""
        total = xxhash.xxh3_128()
        for file in self.files:
            total.update(file.relative_to(self.path).as_posix().encode("utf-8", "surrogateescape") + b"\0")
            total.update(xxhash.xxh3_128_digest(read(file)))
        return total.hexdigest()

    def pictures(self, rows: Rows) -> Images:
        """Decode pictures.

        Raises:
            Refused: one cannot be decoded.
        """
        settings = Decoding(self.size, "crop", WHITE, 0, MOST_PIXELS, 1)
        places = shuffled(rows, self.count, self.order).tolist()
        return np.stack([decoded(self.files[place], settings).pixels for place in places])

    def labels(self, rows: Rows) -> None:
        """Return None: a plain folder has no labels."""

    def held_out(self) -> None:
        """Return None: nobody has kept any of them out."""


def read(file: Path) -> bytes:
    """Read a file.

    Raises:
        Refused: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from error


def decoded(file: Path, settings: Decoding) -> Picture:
    """Decode a picture.

    Raises:
        Refused: it cannot be used.
    """
    try:
        return decode(read(file), settings)
    except Excluded as error:
        raise Refused(f"{file} is no usable picture: {REASONS[error.reason]} ({error.detail}); remove it") from error


def open_fixed(path: Path, size: int | None, order: Order = OF_REALS) -> Shards | Folder:
    """Open a set of pictures that is there: shards, or a plain folder.

    Args:
        path: of the folder.
        size: height and width that the pictures must have, or be brought to; None: their own.
        order: of the pictures.

    Raises:
        Refused: there is none, or shards have another size.
    """
    if not path.is_dir():
        raise Refused(f"{path} is no folder: name a run, a folder of shards or a folder of pictures")
    if not (path / INDEX).exists():
        return Folder(path, size, order)
    index = Index.open(path)
    if size is not None and index.size != size:
        raise Refused(
            f"the pictures in {path} are {index.size} pixels wide, and {size} are wanted: build others with: "
            f"python -m shards build PICTURES --out NEW --size {size}; or name PICTURES, which are resized"
        )
    return Shards(index, "train", order)
