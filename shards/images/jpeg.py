"""Decode a JPEG strictly, so that damage is noticed: libjpeg only warns of it, and Pillow drops the warnings.

simplejpeg returns the warnings. It gives the same pixels as Pillow, bit by bit, and is as fast: both use libjpeg-turbo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from shards.exclusion import Excluded

Pixels = npt.NDArray[np.uint8]  # (height, width, channels)

COLORS = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # Pillow's mode -> simplejpeg's name
MAX_COPIED_PIXELS = (
    1 << 24
)  # pixels: those of larger pictures are not copied, as RGBX has the 4 bytes a pixel that Pillow needs
NOT_SUPPORTED = ("Could not determine subsampling", "Unsupported color conversion")  # by simplejpeg; Pillow reads these
HARMLESS = (
    "unknown JFIF revision",
    "Unknown Adobe color transform",
    "Inconsistent progression",
    "Invalid SOS parameters",
)
STRAY_BYTES = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
SOS, END = 0xDA, b"\xff\xd9"
NEEDED_MARKERS = {0xDB, 0xDD, *range(0xC0, 0xD0)}  # quantization, restarts, frames and Huffman
FEW_STRAY_BYTES, FEW_BYTE_VALUES = (
    32,
    4,
)  # stray bytes that may be anything; values of more than so many, which are filling
READ_AHEAD = 8  # bytes; the decoder does not count as stray what it has read in advance


class DecoderWarning(Exception):
    """A warning or an error of the decoder, with its message."""


def load_jpeg(data: bytes, mode: str, size: tuple[int, int]) -> tuple[Image.Image | None, str | None]:
    """Decode a JPEG at 1, 1/2, 1/4 or 1/8 of its size, rounded up.

    Args:
        data: the file.
        mode: Pillow's mode of its pixels, a key of COLORS.
        size: width and height of the result.

    Returns:
        The pixels; None: Pillow has to decode it, as there was a harmless warning, or simplejpeg does not support its
        kind. And the harmless warning; None: there was none.

    Raises:
        Excluded: the picture is damaged.
        MemoryError: the machine has too little memory for it.
    """
    colors = COLORS[mode]
    shared = "RGBX" if mode == "RGB" and size[0] * size[1] > MAX_COPIED_PIXELS else mode
    try:
        pixels = decode_strictly(data, colors if shared == mode else shared, size)
    except DecoderWarning as error:
        return None, None if str(error).startswith(NOT_SUPPORTED) else check_harmless(data, str(error), colors)
    if mode == "CMYK":
        np.bitwise_not(pixels, out=pixels)  # as Pillow does: Adobe's programs store inverted CMYK
    height, width, _ = pixels.shape
    return Image.frombuffer(shared, (width, height), pixels, "raw", shared, 0, 1), None


def check_jpeg(data: bytes, channels: int) -> None:
    """Check a JPEG that is part of another file, such as a tile of a TIFF.

    Raises:
        Excluded: it is damaged.
    """
    colors = {1: "GRAY", 3: "RGB", 4: "CMYK"}.get(channels)
    if colors is None:
        return
    try:
        decode_strictly(data + END, colors)
    except DecoderWarning as error:
        if not str(error).startswith(NOT_SUPPORTED):
            check_harmless(data + END, str(error), colors)


def decode_strictly(data: bytes, colors: str, size: tuple[int, int] = (0, 0)) -> Pixels:
    """Decode, and raise at the first warning.

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
        raise DecoderWarning(text) from None
    return pixels


def check_harmless(data: bytes, text: str, colors: str) -> str:
    """Return the text of a warning if it is harmless: the pixels are all right.

    Raises:
        Excluded: the picture is damaged.
    """
    bare = data if header_is_clean(data) else without_extras(data)
    if bare != data:  # the warning was about the header, so the pixels are not checked yet
        try:
            decode_strictly(bare, colors)
        except DecoderWarning as error:
            exclude_unless_harmless(bare, str(error), colors)
    else:
        exclude_unless_harmless(data, text, colors)
    return text


def exclude_unless_harmless(data: bytes, text: str, colors: str) -> None:
    """Check one warning.

    Raises:
        Excluded: it is not harmless.
    """
    stray = STRAY_BYTES.search(text)
    if not (any(known in text for known in HARMLESS) or (stray and ends_well(data, int(stray[1]), colors))):
        raise Excluded("truncated" if text.startswith("Premature end of JPEG") else "damaged", text)


def header_is_clean(data: bytes) -> bool:
    """Return whether the decoder reads everything before the first scan without a warning."""
    try:
        simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return True


def without_extras(data: bytes) -> bytes:
    """Return the JPEG without the segments before the first scan that decoding does not need."""
    return b"\xff\xd8" + b"".join(needed_segments(data))


def needed_segments(data: bytes) -> Iterator[bytes]:
    """Yield the header segments that decoding needs, and everything from the first scan on."""
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
        # What is left out is what programs wrote beside the picture: thumbnails, profiles, comments.
        if marker in NEEDED_MARKERS:
            yield data[place:end]
        place = end


def ends_well(data: bytes, stray: int, colors: str) -> bool:
    """Return whether extra bytes before the end mark are only filling, and not pixels that were not decoded.

    Two signs tell them apart. An encoder pads the last byte of a picture with ones; a decoder that lost its place
    because of damage stops anywhere, and the unused bits of its last byte are seldom all ones. And many bytes with many
    different values look like pixels.
    """
    for mark in re.finditer(END, data):  # a thumbnail has an end mark too, and so may what follows the picture
        picture = data[: mark.start() - stray]
        if (pixels := decode_without_end(picture, colors)) is not None:
            break
    else:
        return False
    if stray > FEW_STRAY_BYTES and len(set(data[len(picture) : mark.start()])) > FEW_BYTE_VALUES:
        return False
    for _ in range(READ_AHEAD):
        if not equal_pixels(decode_without_end(picture[:-1], colors), pixels):
            break
        picture = picture[:-1]
    last = picture[-1]
    lowest_zero = ~last & (last + 1) & 0xFF  # below it are only ones: padding, unless this bit is padding too
    changed = bytes([last | lowest_zero])
    return not lowest_zero or not equal_pixels(
        decode_without_end(picture[:-1] + changed + b"\x00" * (changed == b"\xff"), colors), pixels
    )


def decode_without_end(picture: bytes, colors: str) -> Pixels | None:
    """Decode a JPEG that lacks its end mark; None: the decoder warns."""
    try:
        return decode_strictly(picture + END, colors)
    except DecoderWarning:
        return None


def equal_pixels(a: Pixels | None, b: Pixels) -> bool:
    """Return whether pixels are equal; None equals nothing."""
    return a is not None and np.array_equal(a, b)
