"""Correct faults of Pillow with PNGs: a damaged comment fails the whole picture, transparent colours are wrong."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from PIL.PngImagePlugin import PngImageFile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
REQUIRED_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
USEFUL_CHUNKS, NO_CHUNKS = frozenset({b"tRNS", b"iCCP", b"eXIf"}), frozenset[bytes]()
BITS, KIND, GREY = 24, 25, 0  # places in the file of bits a channel and of the kind of pixels; the kind of grey


def correct_transparency(image: PngImageFile, data: bytes) -> None:
    """Scale the transparent colour as Pillow scales the pixels; of 16-bit grey `to_eight_bits` scales it."""
    # Pillow scales the pixels to 8 bits, but not the colour that stands for transparency.
    color, bits = image.info.get("transparency"), data[BITS]
    if isinstance(color, int) and bits in (2, 4) and data[KIND] == GREY:
        image.info["transparency"] = color * 255 // ((1 << bits) - 1)
    elif isinstance(color, tuple) and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in color)


def without_extras(data: bytes) -> Iterator[bytes]:
    """Yield the PNG without texts, animation and damaged optional chunks, then without all optional chunks.

    Nothing is yielded if it is no PNG.
    """
    if data.startswith(SIGNATURE):
        for useful in USEFUL_CHUNKS, NO_CHUNKS:
            yield SIGNATURE + b"".join(kept_chunks(data, useful))


def kept_chunks(data: bytes, useful: frozenset[bytes]) -> Iterator[bytes]:
    """Yield the required chunks, and the useful ones that are intact, in their order."""
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind, whole = data[place + 4 : place + 8], data[place:end]
        intact = zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")
        if kind in REQUIRED_CHUNKS or (kind in useful and intact):
            yield whole
        place = end
