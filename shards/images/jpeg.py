"""Decode a JPEG so that damage inside is noticed: the decoder warns of it, and Pillow does not pass its warnings on.

simplejpeg gives the same pixels as Pillow, bit by bit, in nearly the same time: both are libjpeg-turbo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from shards.images.exclusion import Excluded

Pixels = npt.NDArray[np.uint8]  # (height, width, channels)

COLORS = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # Pillow's mode -> simplejpeg's name
LARGE = 1 << 24  # pixels: those of larger pictures are not copied, as RGBX has the 4 bytes a pixel that Pillow needs
NOT_SUPPORTED = ("Could not determine subsampling", "Unsupported color conversion")  # by simplejpeg; Pillow reads these
HARMLESS = (
    "unknown JFIF revision",
    "Unknown Adobe color transform",
    "Inconsistent progression",
    "Invalid SOS parameters",
)
STRAY = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
SOS, END = 0xDA, b"\xff\xd9"
TABLES = {0xDB, 0xDD, *range(0xC0, 0xD0)}  # quantization, restarts, frames and Huffman
FEW, SHADES = 32, 4  # stray bytes that may be anything; values of more than so many, which are filling
READ_AHEAD = 8  # bytes; the decoder does not count as stray what it has read in advance


class Warned(Exception):
    """The decoder is not content: the message is its own."""


def load_jpeg(data: bytes, mode: str, size: tuple[int, int]) -> tuple[Image.Image | None, str | None]:
    """Decode to a size that is 1, 1/2, 1/4 or 1/8 of the picture's, rounded up.

    Returns:
        The pixels, or None: Pillow has to decode them, because of a warning, or a kind that only it reads; and the
        warning, which is harmless.

    Raises:
        Excluded: the picture is damaged.
        MemoryError: the machine has too little memory for it.
    """
    colors = COLORS[mode]
    shared = "RGBX" if mode == "RGB" and size[0] * size[1] > LARGE else mode
    try:
        pixels = decoded(data, colors if shared == mode else shared, size)
    except Warned as error:
        return None, None if str(error).startswith(NOT_SUPPORTED) else harmless(data, str(error), colors)
    if mode == "CMYK":
        np.bitwise_not(pixels, out=pixels)  # as Pillow does: Adobe's programs store the inverse
    height, width, _ = pixels.shape
    return Image.frombuffer(shared, (width, height), pixels, "raw", shared, 0, 1), None


def check_jpeg(data: bytes, channels: int) -> None:
    """Decode a JPEG that is part of another file, and forget it.

    Raises:
        Excluded: it is damaged.
    """
    colors = {1: "GRAY", 3: "RGB", 4: "CMYK"}.get(channels)
    if colors is None:
        return
    try:
        decoded(data + END, colors)
    except Warned as error:
        if not str(error).startswith(NOT_SUPPORTED):
            harmless(data + END, str(error), colors)


def decoded(data: bytes, colors: str, size: tuple[int, int] = (0, 0)) -> Pixels:
    """Decode, and stop at the first warning.

    Raises:
        Warned: there was one, or an error.
        MemoryError: the machine has too little memory.
    """
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colors, min_width=size[0], min_height=size[1])
    except ValueError as error:
        text = str(error).strip().rpartition("(): ")[2]
        if "memory" in text:
            raise MemoryError(text) from error
        raise Warned(text) from None
    return pixels


def harmless(data: bytes, text: str, colors: str) -> str:
    """Return a warning that says nothing against the pixels.

    Raises:
        Excluded: it does.
    """
    bare = data if header_is_clean(data) else without_extras(data)
    if bare != data:  # the decoder stopped before the pixels
        try:
            decoded(bare, colors)
        except Warned as error:
            judge(bare, str(error), colors)
    else:
        judge(data, text, colors)
    return text


def judge(data: bytes, text: str, colors: str) -> None:
    """Raise Excluded unless a warning is harmless."""
    stray = STRAY.search(text)
    if not (any(known in text for known in HARMLESS) or (stray and ends_well(data, int(stray[1]), colors))):
        raise Excluded("truncated" if text.startswith("Premature end of JPEG") else "damaged", text)


def header_is_clean(data: bytes) -> bool:
    """Tell whether the decoder has nothing to say of what stands before the first scan."""
    try:
        simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return True


def without_extras(data: bytes) -> bytes:
    """Leave out whatever stands before the first scan and is not needed to decode it."""
    return b"\xff\xd8" + b"".join(needed(data))


def needed(data: bytes) -> Iterator[bytes]:
    """Yield the segments of the header that the pixels depend on, and all from the first scan on."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        if marker == SOS:
            yield data[place:]
            return
        if marker in (0x00, 0xFF):  # stray bytes, or filling
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in TABLES:
            yield data[place:end]
        place = end


def ends_well(data: bytes, stray: int, colors: str) -> bool:
    """Tell whether bytes between the picture and its end mark are only stray, and not a part that was not decoded.

    An encoder fills the last byte of a picture with ones. Where damage made the decoder lose its place it stops
    anywhere: the bits that it leaves in its last byte are seldom all ones. And many bytes that differ look like pixels.
    """
    for mark in re.finditer(END, data):  # a thumbnail has one too, and what follows the picture
        picture = data[: mark.start() - stray]
        if (pixels := whole(picture, colors)) is not None:
            break
    else:
        return False
    if stray > FEW and len(set(data[len(picture) : mark.start()])) > SHADES:
        return False
    for _ in range(READ_AHEAD):
        if not same(whole(picture[:-1], colors), pixels):
            break
        picture = picture[:-1]
    last = picture[-1]
    lowest_zero = ~last & (last + 1) & 0xFF  # the bits below are ones, so the filling unless this one is unused too
    changed = bytes([last | lowest_zero])
    return not lowest_zero or not same(whole(picture[:-1] + changed + b"\x00" * (changed == b"\xff"), colors), pixels)


def whole(picture: bytes, colors: str) -> Pixels | None:
    """Decode a JPEG that lacks its end mark; None: it is not whole."""
    try:
        return decoded(picture + END, colors)
    except Warned:
        return None


def same(a: Pixels | None, b: Pixels) -> bool:
    """Tell whether pixels are equal."""
    return a is not None and np.array_equal(a, b)
