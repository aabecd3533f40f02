"""Correct faults of Pillow with TIFFs: damage that it ignores, and values that it misreads."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL.TiffImagePlugin import TiffImageFile

from shards.exclusion import Excluded
from shards.images.foreign import describe_tags
from shards.images.jpeg import check_jpeg

BITS, PHOTOMETRIC, SAMPLES, PLANAR, FORMAT = 258, 262, 277, 284, 339
SUBSAMPLING, REDUCED, SUB_IFDS, JPEG_TABLES, DNG_VERSION = 530, 254, 330, 347, 50706
STRIPS, TILES = (273, 279), (324, 325)  # offsets, byte counts
WHITE_IS_ZERO, SEPARATE, UNSIGNED, SIGNED = 0, 2, 1, 2
BLOCK = 1 << 20  # bytes that are inflated at a time
MAX_ERROR_BYTES = 200  # bytes
MAX_TWELVE_BITS = 4095.0


def load_tiff(image: TiffImageFile, data: bytes, notes: set[str]) -> None:
    """Load the pixels.

    Raises:
        Excluded: Pillow would give other pixels than the tags say, or a strip or tile is damaged.
        OSError: Pillow cannot decode it; the message includes what libtiff wrote to standard error.
    """
    check_kind(image)
    if image.tag_v2.get(SAMPLES, 1) > len(image.getbands()):
        notes.add("extra_channels")
    check_pieces(image, data)
    with capture_libtiff_errors() as words:
        try:
            image.load()
        except OSError as error:
            raise OSError(" ".join([str(error), words()])) from error
    if max(image.tag_v2.get(BITS, (1,))) == 16 and image.mode in ("RGB", "RGBA") and is_nearly_black(image):
        raise Excluded("unsupported", "TIFF: 12 bits in 16, of which Pillow keeps the upper 8 and so loses all but 4")


def check_kind(image: TiffImageFile) -> None:
    """Check that Pillow reads this kind of TIFF correctly.

    Raises:
        Excluded: it is a raw file with a small preview, or has values that Pillow takes for others.
    """
    tags = image.tag_v2
    if DNG_VERSION in tags or (tags.get(REDUCED) == 1 and SUB_IFDS in tags):
        raise Excluded("unsupported", "a camera's raw file (DNG, NEF and the like) with a small preview")
    bits = max(tags.get(BITS, (1,)))
    wide = tags.get(PLANAR) == SEPARATE and tags.get(SAMPLES, 1) > 1 and bits > 8
    halved = image.mode == "YCbCr" and tags.get(SUBSAMPLING, (2, 2)) != (1, 1)  # Pillow takes it for whole
    if wide or halved or (bits == 8 and SIGNED in tags.get(FORMAT, ())):
        raise Excluded("unsupported", f"TIFF: {describe_tags(tags)}")


def is_nearly_black(image: TiffImageFile) -> bool:
    """Return whether a picture that Pillow cut from 16 to 8 bits had no value above 4095, and is not all black."""
    return 0 < max(int(np.asarray(image.getchannel(band)).max()) for band in "RGB") <= 15


def check_pieces(image: TiffImageFile, data: bytes) -> None:
    """Check the strips or tiles that are deflated or JPEGs: libtiff stops before the checksum, and drops warnings.

    Raises:
        Excluded: one is damaged.
    """
    tags, compression = image.tag_v2, image.info.get("compression")
    if compression not in ("tiff_adobe_deflate", "tiff_deflate", "jpeg"):
        return
    offsets, counts = (tags.get(number, ()) for number in (STRIPS if STRIPS[0] in tags else TILES))
    separate = tags.get(PLANAR) == SEPARATE
    for offset, count in zip(offsets, counts, strict=False):
        piece = data[offset : offset + count]
        if compression == "jpeg":
            tables = tags.get(JPEG_TABLES, b"")
            # Without the end mark of the tables and the start mark of the piece they are one JPEG.
            check_jpeg(tables[:-2] + piece[2:] if tables else piece, 1 if separate else tags.get(SAMPLES, 1))
        else:
            check_deflate(piece)


def check_deflate(piece: bytes) -> None:
    """Inflate a strip or tile to its end, so that the checksum is compared.

    Raises:
        Excluded: it is damaged.
    """
    unpacker = zlib.decompressobj()
    try:
        while piece and not unpacker.eof:
            # A block at a time, so that a bomb takes no memory.
            unpacker.decompress(piece, BLOCK)
            piece = unpacker.unconsumed_tail
    except zlib.error as error:
        raise Excluded("damaged", str(error)) from error


@contextmanager
def capture_libtiff_errors() -> Iterator[Callable[[], str]]:
    """Redirect standard error for the `with` block, and yield a function that returns what was written.

    libtiff reports errors only there.
    """
    sys.stderr.flush()
    before, words = os.dup(2), os.memfd_create("libtiff")
    os.dup2(words, 2)
    try:
        yield lambda: " ".join(os.pread(words, MAX_ERROR_BYTES, 0).decode("latin-1").split())
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(words)


def tiff_values(image: TiffImageFile, notes: set[str]) -> tuple[npt.NDArray[np.float64], tuple[float, float] | None]:
    """Return the values of a picture with more than 8 bits, (h, w), and those of black and white, if known."""
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "I" and tuple(image.tag_v2.get(FORMAT, (UNSIGNED,))) == (UNSIGNED,):
        values = np.where(values < 0, values + 2.0**32, values)  # Pillow reads unsigned values as signed
    if not image.mode.startswith("I;16") or not 0 < values.max() <= MAX_TWELVE_BITS:
        return values, None
    if max(image.tag_v2.get(BITS, (1,))) != 12:
        notes.add("twelve_bits")
    return values, (0.0, MAX_TWELVE_BITS)


def is_inverted(image: TiffImageFile) -> bool:
    """Return whether zero is white, which Pillow handles only for 8 bits and less."""
    return image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
