"""Sources of images. A source returns images by number, so that any process may compute any of them.

A source of a fixed set numbers its images by a keyed permutation: the first n are a random sample without replacement,
the same for every process and machine. The images that are measured have another order than the reals: otherwise the
first n of a copy of the reals would be exactly the images they are compared with.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from shards.dataset.files import INDEX
from shards.dataset.index import Index
from shards.dataset.labels import label_columns
from shards.dataset.order import permute
from shards.dataset.stream import Reader
from shards.exclusion import REASONS, Excluded
from shards.images.decode import Picture, decode_image
from shards.images.decoding import Decoding
from shards.images.size import format_size, shape_options
from shards.storage.place import Place
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.sampling.sampler import Images

Rows = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]  # (n,)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_PIXELS = 2 * 89_478_485  # of one picture, as in `shards build`
HOLDOUT = "holdout"  # the split's name
WHITE = (255, 255, 255)
Form = tuple[int, int, int]
"""Height, width and channels."""

Order = tuple[str, ...]  # added to the key of the permutation
ORDER_OF_REALS: Order = ()
ORDER_OF_FAKES: Order = ("fakes",)


class ImageSource(Protocol):
    """A set of images of one size."""

    @property
    def name(self) -> str:
        """What it is, for messages."""

    @property
    def key(self) -> tuple[str, ...]:
        """Names the content: equal keys mean equal images."""

    @property
    def count(self) -> int | None:
        """The number of images; None: unlimited, as they are generated."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty: the images have no labels."""

    def images(self, rows: Rows) -> Images:
        """Return the images of these numbers: (n, h, w, c)."""

    def labels(self, rows: Rows) -> Labels | None:
        """Return the classes of these images, (n,) indices of `classes`; None: they have none."""


def shuffled_places(rows: Rows, count: int, order: Order) -> Rows:
    """Return the place of each number in a set of `count` images."""
    return permute(rows, count, "evaluation", *order)


class ShardImages:
    """The images of a split of a folder of shards.

    Args:
        index: of the folder.
        split: "train" or "holdout".
        order: of its images.
        columns: their labels, of which the first with classes counts; none, or not all there: the one in the table.
    """

    def __init__(self, index: Index, split: str, order: Order = ORDER_OF_REALS, columns: tuple[str, ...] = ()) -> None:
        self.index, self.split, self.order = index, index.splits[split], order
        self.columns = columns if {*columns} <= {column.name for column in label_columns(index)} else ()
        self.name, self.key = f"{index.path} ({split})", ("shards", index.hash, split, *order, *self.columns)
        self.count, self.form = self.split.samples, (*index.size, index.channels)
        self.reader = Reader(index, split, self.refuse_damage, self.columns)
        self.classes = next((one.classes for one in self.reader.labels.columns if one.kind == "class"), ())

    def refuse_damage(self, sample: int, problem: str) -> NoReturn:
        """Refuse damaged data: the image that replaces a damaged one in training would change the figures.

        Raises:
            Refused: always.
        """
        raise Refused(
            f"sample {sample} of {self.name} is damaged: {problem}; "
            f"run: {command('shards', 'verify', self.index.path)}, and build the shards again, into a new folder"
        )

    def held_out(self) -> ShardImages | None:
        """Return the images that were held out from training; None: there are none."""
        return ShardImages(self.index, HOLDOUT) if self.index.splits[HOLDOUT].samples else None

    def images(self, rows: Rows) -> Images:
        """Read the images of these numbers: (n, h, w, c)."""
        return self.reader(shuffled_places(rows, self.count, self.order)).images

    def told(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Return all labels of these images, (n, values), without reading these."""
        return self.reader.labels(self.split.first + shuffled_places(rows, self.count, self.order))

    def labels(self, rows: Rows) -> Labels | None:
        """Return the classes of these images, (n,); None: they have none."""
        return self.reader.labels.first_classes(self.told(rows)) if self.classes else None


class FolderImages:
    """The images of a plain folder and of all folders below it, sorted by name.

    Each is decoded as `shards build` does it: upright, sRGB, RGB over white; the centre is cropped and resized with
    Lanczos, unless it has the size already.

    Args:
        path: the folder.
        form: height, width and channels of the result; None: RGB of the first picture's centre square.
        order: of its pictures.

    Raises:
        Refused: there is no picture, or the first one cannot be decoded.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, path: Path, form: Form | None = None, order: Order = ORDER_OF_REALS) -> None:
        # By suffix only: a folder of pictures may hold texts, and opening every file would take long.
        found = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        self.path, self.files = path, sorted(found, key=lambda file: file.relative_to(path).as_posix())
        if not self.files:
            raise Refused(f"{path} holds no run, no shards and no pictures ({', '.join(sorted(SUFFIXES))})")
        self.name, self.count, self.order = str(path), len(self.files), order
        self.form = self.first_form() if form is None else form
        self.key = ("folder", self.hash(), name_form(self.form), *order)

    def first_form(self) -> Form:
        """Return that of the centre square of the first picture."""
        # Decoded to 1 x 1: only the original size is wanted.
        first = decode_file(self.files[0], Decoding((1, 1), "crop", WHITE, 0, MAX_PIXELS, 1))
        side = min(first.width, first.height)
        return side, side, 3

    def hash(self) -> str:
        """Return the XXH3-128 of all names and bytes."""
        total = xxhash.xxh3_128()
        for file in self.files:
            # Names count as well, because their order numbers the images.
            total.update(file.relative_to(self.path).as_posix().encode("utf-8", "surrogateescape") + b"\0")
            total.update(xxhash.xxh3_128_digest(read_file(file)))
        return total.hexdigest()

    def images(self, rows: Rows) -> Images:
        """Decode the images of these numbers: (n, h, w, c).

        Raises:
            Refused: one cannot be decoded.
        """
        # Without scaled decoding: it changes pixels, and figures with them.
        settings = Decoding(self.form[:2], "crop", WHITE, 0, MAX_PIXELS, 1, self.form[2])
        places = shuffled_places(rows, self.count, self.order).tolist()
        return np.stack([decode_file(self.files[place], settings).pixels for place in places])

    def labels(self, rows: Rows) -> None:
        """Return None: a plain folder has no labels."""

    def held_out(self) -> None:
        """Return None: a plain folder has no held-out images."""


def read_file(file: Path) -> bytes:
    """Read a file.

    Raises:
        Refused: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from error


def decode_file(file: Path, settings: Decoding) -> Picture:
    """Decode a picture.

    Raises:
        Refused: it cannot be used.
    """
    try:
        return decode_image(read_file(file), settings)
    except Excluded as error:
        raise Refused(f"{file} is no usable picture: {REASONS[error.reason]} ({error.detail}); remove it") from error


def name_form(form: Form) -> str:
    """Return height, width and channels in words: those of RGB only as the size."""
    size, channels = format_size(form[:2]), form[2]
    return size if channels == 3 else f"{size} of {channels} channel{'s' * (channels > 1)}"


def open_images(
    path: Place, form: Form | None, order: Order = ORDER_OF_REALS, columns: tuple[str, ...] = ()
) -> ShardImages | FolderImages:
    """Open a fixed set of images: shards, or a plain folder.

    Args:
        path: of the folder.
        form: height, width and channels that shards must have, and that images of a plain folder are brought to; None:
            their own.
        order: of the images.
        columns: labels of shards, as in `ShardImages`.

    Raises:
        Refused: there is none, or shards have another form.
    """
    if isinstance(path, Path) and not path.is_dir():
        raise Refused(f"{path} is no folder: name a run, a folder of shards or a folder of pictures")
    if isinstance(path, Path) and not (path / INDEX).exists():
        return FolderImages(path, form, order)
    index = Index.open(path)
    if form is not None and (found := (*index.size, index.channels)) != form:
        options = shape_options(form[:2], form[2])
        raise Refused(
            f"the pictures in {path} are {name_form(found)}, and {name_form(form)} are wanted: build others with: "
            f"python -m shards build PICTURES --out NEW {options}; or name PICTURES, which are resized"
        )
    return ShardImages(index, "train", order, columns)
