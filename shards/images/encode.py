"""The encodings of pictures in shards: a choice between size, speed and fidelity (docs/data.md has the figures)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

Pixels = npt.NDArray[np.uint8]  # (size, size, 3)


@dataclass(frozen=True)
class Encoding:
    """One encoding."""

    extension: str
    encode: Callable[[Pixels], bytes]
    decode: Callable[[bytes, int], Pixels]
    """(bytes, size) -> pixels; raises ValueError or OSError if the bytes are not a picture of this size."""


def encode_raw(pixels: Pixels) -> bytes:
    """Write a .npy file, which webdataset and NumPy can open; the pixels are one block at its end."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(pixels), allow_pickle=False)
    return buffer.getvalue()


def decode_raw(data: bytes, size: int) -> Pixels:
    """Return a view of the pixels at the end of a .npy file."""
    header = len(data) - size * size * 3
    if header <= 0 or not data.startswith(b"\x93NUMPY"):
        raise ValueError(f"not {size} x {size} raw pixels")
    # Without np.load, which parses the header each time.
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(size, size, 3)


def with_pillow(format: str, **options: object) -> Callable[[Pixels], bytes]:
    """Return an encoder to one of Pillow's formats."""

    def encode(pixels: Pixels) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format, **options)
        return buffer.getvalue()

    return encode


def decode_pillow(data: bytes, size: int) -> Pixels:
    """Decode with Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        return check_size(np.asarray(image.convert("RGB")), size)


def decode_jpeg(data: bytes, size: int) -> Pixels:
    """Decode with libjpeg-turbo."""
    return check_size(simplejpeg.decode_jpeg(data, "RGB"), size)


def check_size(pixels: Pixels, size: int) -> Pixels:
    """Return the pixels if they have this size.

    Raises:
        ValueError: they have not.
    """
    if pixels.shape != (size, size, 3):
        raise ValueError(f"a picture of {pixels.shape}, not {size} x {size}")
    return pixels


ENCODINGS = {
    "raw": Encoding("npy", encode_raw, decode_raw),
    "png": Encoding("png", with_pillow("PNG", compress_level=6), decode_pillow),
    "webp": Encoding("webp", with_pillow("WEBP", lossless=True, method=4, exact=True), decode_pillow),
    # 4:4:4, because subsampled chroma loses more fidelity than all other steps of a build together.
    "jpg": Encoding(
        "jpg", lambda pixels: bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 95, "RGB", "444")), decode_jpeg
    ),
}
