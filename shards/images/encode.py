"""The encodings of pictures in shards: a choice between size, speed and fidelity (docs/data.md has the figures)."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

MOST_HEADER = 1024  # bytes: NumPy's has 128
Pixels = npt.NDArray[np.uint8]  # (height, width, channels): 1 grey, 3 RGB, 4 RGBA
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> Pillow's mode


@dataclass(frozen=True)
class Encoding:
    """One encoding."""

    extension: str
    encode: Callable[[Pixels], bytes]
    decode: Callable[[bytes, Pixels], None]
    """Writes the pixels into an array; raises ValueError or OSError if the bytes are not a picture of its size."""


def encode_raw(pixels: Pixels) -> bytes:
    """Write a .npy file, which webdataset and NumPy can open; the pixels are one block at its end."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(pixels), allow_pickle=False)
    return buffer.getvalue()


def decode_raw(data: bytes, out: Pixels) -> None:
    """Copy the pixels at the end of a .npy file."""
    header = len(data) - out.size
    # The shape as well: 256 x 384 pixels have as many bytes as 384 x 256.
    whole = 0 < header < MOST_HEADER and data.startswith(b"\x93NUMPY")
    if not whole or str(out.shape).encode() not in data[:header]:
        raise ValueError(f"not {out.shape[0]} x {out.shape[1]} raw pixels")
    # Without np.load, which parses the header each time.
    out[:] = np.frombuffer(data, dtype=np.uint8, offset=header).reshape(out.shape)


def with_pillow(format: str, **options: object) -> Callable[[Pixels], bytes]:
    """Return an encoder to one of Pillow's formats."""

    def encode(pixels: Pixels) -> bytes:
        buffer = io.BytesIO()
        to_pillow(pixels).save(buffer, format, **options)
        return buffer.getvalue()

    return encode


def to_pillow(pixels: Pixels) -> Image.Image:
    """Return pixels as a picture of Pillow's."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def decode_pillow(data: bytes, out: Pixels) -> None:
    """Decode with Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert(MODES[out.shape[2]]))
    check_size(pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1), out)
    out[:] = pixels.reshape(out.shape)


def encode_jpeg(pixels: Pixels) -> bytes:
    """Write a JPEG of grey or RGB."""
    # 4:4:4, because subsampled chroma loses more fidelity than all other steps of a build together.
    colors, chroma = ("GRAY", "Gray") if pixels.shape[2] == 1 else ("RGB", "444")
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 95, colors, chroma))


def decode_jpeg(data: bytes, out: Pixels) -> None:
    """Decode with libjpeg-turbo, into the array itself, without Python's lock."""
    colors = "GRAY" if out.shape[2] == 1 else "RGB"
    check_size(simplejpeg.decode_jpeg(data, colors, buffer=out).shape, out)


def decode_webp(data: bytes, out: Pixels) -> None:
    """Decode with libwebp, into the array itself, without Python's lock; with Pillow where that does not show it."""
    # WebP has no grey: such a picture is RGB in the file, and seldom enough for Pillow to decode it.
    if LIBWEBP is None or out.shape[2] == 1:
        decode_pillow(data, out)
        return
    width, height = ctypes.c_int(), ctypes.c_int()
    if not LIBWEBP.WebPGetInfo(data, len(data), ctypes.byref(width), ctypes.byref(height)):
        raise ValueError("no WebP")
    check_size((height.value, width.value, out.shape[2]), out)
    decode = LIBWEBP.WebPDecodeRGBAInto if out.shape[2] == 4 else LIBWEBP.WebPDecodeRGBInto
    if not decode(data, len(data), out.ctypes.data, out.nbytes, out.strides[0]):
        raise ValueError("a damaged WebP")


def load_libwebp() -> ctypes.CDLL | None:
    """Return the libwebp that Pillow has loaded, or None if it shows none.

    Pillow itself decodes to RGBA, as the first frame of an animation, and copies that: it takes twice as long.
    """
    try:
        from PIL import _webp

        library = ctypes.CDLL(_webp.__file__)  # a symbol is looked for in what it is linked with, too
        library.WebPGetInfo.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *[ctypes.POINTER(ctypes.c_int)] * 2]
        decoders = library.WebPDecodeRGBInto, library.WebPDecodeRGBAInto
    except (ImportError, OSError, AttributeError):
        return None
    for decode in decoders:
        decode.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        decode.restype = ctypes.c_void_p  # as long as an address
    return library


LIBWEBP = load_libwebp()


def check_size(shape: tuple[int, ...], out: Pixels) -> None:
    """Check that a picture has an array's shape.

    Raises:
        ValueError: it has not.
    """
    if shape != out.shape:
        raise ValueError(f"a picture of {shape}, not {out.shape[0]} x {out.shape[1]}")


ENCODINGS = {
    "raw": Encoding("npy", encode_raw, decode_raw),
    "png": Encoding("png", with_pillow("PNG", compress_level=6), decode_pillow),
    "webp": Encoding("webp", with_pillow("WEBP", lossless=True, method=4, exact=True), decode_webp),
    "jpg": Encoding("jpg", encode_jpeg, decode_jpeg),
}
