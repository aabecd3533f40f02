"""A fingerprint by which nearly equal pictures are found: a perceptual hash, and a thumbnail that confirms it.

The hash is close to pHash (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010): of the
8 x 8 lowest frequencies of a DCT of the grey picture at 32 x 32, the bits say which exceed one grey level. pHash
compares with their median, which in drawings is zero, so that noise decides: of 150 drawings that were saved again as
JPEG, 29 % got quite another hash by that rule, and none by this one. Flat pictures, and drawings that differ in colour
or in a detail alone, share a hash, so the thumbnails of two pictures must agree as well. All arithmetic is with
integers: the bits are those of any machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.images.display import over_white

GREY_SIZE = 32
FREQUENCIES = 8
CELLS = 16  # height and width of the thumbnail
PRINT = np.dtype([("hash", "<u8"), ("cells", "u1", (CELLS, CELLS, 3))])

ONE_GREY_LEVEL = 4096**2 * (GREY_SIZE // 2) ** 2  # amplitude of a wave, in the units of the DCT below

# Found with openclipart-png at 64 px: of pictures that were saved again as JPEG of quality 75, 40, at half their size,
# and both at half their size and of quality 75, 99, 92, 99 and 79 % are found; no two that a person tells apart are.
MAX_BITS = 3  # of the hash that differ
MAX_CELL = 24  # greatest difference of two values of the thumbnails
MAX_SQUARE = 36 * 3 * CELLS**2  # sum of squared differences
MAX_PERCENT = 3  # of that sum in the thumbnail's own sum of squares around its mean: nearly empty pages are all alike
ROUNDING = 3 * CELLS**2 // 10  # sum of squared differences that rounding makes


def dct_rows() -> npt.NDArray[np.int64]:
    """Return the rows 1 to FREQUENCIES of the DCT-II, times 4096: (FREQUENCIES, GREY_SIZE)."""
    frequency, place = np.arange(1, FREQUENCIES + 1)[:, None], np.arange(GREY_SIZE)[None]
    rows: npt.NDArray[np.int64] = np.rint(4096 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * GREY_SIZE))).astype(
        np.int64
    )
    return rows


DCT = dct_rows()


def fingerprint(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """Return the fingerprint of a picture.

    Args:
        pixels: (height, width, channels), as stored; transparent ones are seen over white.

    Returns:
        A scalar array of PRINT: ().
    """
    image = Image.fromarray(over_white(pixels))
    grey = np.asarray(image.convert("L").resize((GREY_SIZE, GREY_SIZE), Image.Resampling.BOX), dtype=np.int64)
    bits = (DCT @ grey @ DCT.T).ravel() > ONE_GREY_LEVEL
    found = np.zeros((), PRINT)
    found["hash"] = int.from_bytes(np.packbits(bits).tobytes(), "big")
    found["cells"] = np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BOX))
    return found


def agree(cells: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which of several thumbnails show the same picture as one: (n,).

    Args:
        cells: (CELLS, CELLS, 3).
        others: (n, CELLS, CELLS, 3).
    """
    difference = np.abs(others.astype(np.int64) - cells.astype(np.int64)).reshape(len(others), -1)
    flat = cells.reshape(-1, 3).astype(np.int64)
    contrast = int((np.square(flat).sum(0) - np.square(flat.sum(0)) // len(flat)).sum())
    allowed = min(MAX_SQUARE, contrast * MAX_PERCENT // 100 + ROUNDING)
    same: npt.NDArray[np.bool_] = (difference.max(1) <= MAX_CELL) & (np.square(difference).sum(1) <= allowed)
    return same
