"""Arrays of NumPy as pictures: a .npy file of bytes, height x width, or times 1, 3 or 4 channels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from shards.exclusion import Excluded

MAGIC = b"\x93NUMPY"


def as_image(data: bytes) -> bytes:
    """Return the bytes of a picture as they are, and those of an array as a PNG with the same pixels.

    Raises:
        Excluded: the array is no picture.
    """
    if not data.startswith(MAGIC):
        return data
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise Excluded("damaged", f"an array of NumPy: {error}") from error
    pixels = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    grey, colours = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if pixels.dtype != np.uint8 or not pixels.size or not (grey or colours):
        what = f"an array of {array.dtype} and shape {array.shape}"
        raise Excluded("unsupported", f"{what}, not of bytes, height x width x 1, 3 or 4")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
