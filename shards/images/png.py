"""What Pillow leaves to be seen to in a PNG: it refuses a whole picture for the sake of a damaged comment, and takes a
transparent colour for another one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from PIL.PngImagePlugin import PngImageFile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
USEFUL, NONE = frozenset({b"tRNS", b"iCCP", b"eXIf"}), frozenset[bytes]()
BITS, KIND, GREY = 24, 25, 0  # bytes of the file: bits a channel, kind of pixels; one of these


def correct_transparency(image: PngImageFile, data: bytes) -> None:
    """Scale the transparent colour as Pillow scales the pixels; grey of 16 bits stays as it is for now."""
    color, bits = image.info.get("transparency"), data[BITS]
    if isinstance(color, int) and bits in (2, 4) and data[KIND] == GREY:
        image.info["transparency"] = color * 255 // ((1 << bits) - 1)
    elif isinstance(color, tuple) and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in color)


def without_extras(data: bytes) -> Iterator[bytes]:
    """Yield the file without texts, animation and what is damaged but not needed, and then without all that is not
    needed; nothing when it is no PNG.
    """
    if data.startswith(SIGNATURE):
        for useful in USEFUL, NONE:
            yield SIGNATURE + b"".join(kept(data, useful))


def kept(data: bytes, useful: frozenset[bytes]) -> Iterator[bytes]:
    """Yield the chunks that are needed, and the useful ones that are whole, in their order."""
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind, whole = data[place + 4 : place + 8], data[place:end]
        intact = zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")
        if kind in NEEDED or (kind in useful and intact):
            yield whole
        place = end
