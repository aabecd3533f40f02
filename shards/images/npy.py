"""Arrays of NumPy as pictures: a .npy file of bytes, height x width, or times 1, 3 or 4 channels."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from shards.exclusion import Excluded
from shards.npy_header import read_npy_header

MAGIC = b"\x93NUMPY"


def as_image(data: bytes) -> bytes:
    """Return the bytes of a picture as they are, and those of an array as a PNG with the same pixels.

    Raises:
        Excluded: the array is no picture.
    """
    if not data.startswith(MAGIC):
        return data
    try:
        check_header(data)
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise Excluded("damaged", f"an array of NumPy: {error}") from error
    pixels = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def check_header(data: bytes) -> None:
    """Check that an array is a picture, and whole, before there is memory for it.

    Raises:
        Excluded: it is no picture.
        ValueError: it is damaged.
    """
    file = io.BytesIO(data)
    shape, dtype = read_npy_header(file)
    plain = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if dtype != np.uint8 or not plain or min(shape) < 1:
        raise Excluded(
            "unsupported",
            f"an array of {dtype} and shape {shape}, not of bytes, height x width x 1, 3 or 4",
        )
    there = len(data) - file.tell()
    if there < math.prod(shape):
        raise ValueError(f"{there} of {math.prod(shape)} bytes")
