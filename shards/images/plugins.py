"""Formats that Pillow reads by plugins, where they are installed (`pip install lienzo[formats]`): HEIC and JPEG XL."""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache
from typing import Any

INSTALL = "; pip install lienzo[formats] reads it"
PACKAGES = {"HEIF": ("pillow_heif", "pillow-heif"), "JXL": ("pillow_jxl", "pillow-jxl-plugin")}
"""Pillow's name of the format -> module and package."""
JXL_CODESTREAM, JXL_CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a"
RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height, by their number in a JXL
SIDE_BITS = (9, 13, 18, 30)


@cache
def installed_plugins() -> dict[str, str]:
    """Register the plugins that are installed; return package and version of each by Pillow's name of its format."""
    found = {}
    for name, (module, package) in PACKAGES.items():
        try:
            plugin: Any = importlib.import_module(module)
            version = importlib.metadata.version(package)
        except ImportError:  # not installed, or without the library it needs
            continue
        found[name] = f"{package} {version}"
        if name == "HEIF":
            plugin.options.DECODE_THREADS = 1  # there is a worker for each core
            plugin.register_heif_opener(thumbnails=False)
        else:
            plugin = importlib.import_module("pillow_jxl.JpegXLImagePlugin")
            plugin.DECODE_THREADS = 0  # that of the caller alone
    return found


def is_jxl(data: bytes) -> bool:
    """Return whether a file is JPEG XL."""
    return data.startswith((JXL_CODESTREAM, JXL_CONTAINER))


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height from the header of a JPEG XL; None: it is none, or damaged.

    Its plugin decodes all pixels when it opens a file, so that a bomb must be known before.
    """
    start = codestream_start(data)
    if start is None or data[start : start + 2] != JXL_CODESTREAM:
        return None
    bits = Bits(int.from_bytes(data[start + 2 : start + 16], "little"))
    small = bits.take(1)
    height = read_side(bits, small)
    ratio = RATIOS[bits.take(3)]
    width = height * ratio[0] // ratio[1] if ratio else read_side(bits, small)
    return width, height


class Bits:
    """Bits of a number, the least significant first."""

    def __init__(self, number: int) -> None:
        self.number = number

    def take(self, count: int) -> int:
        """Take the next bits as a number."""
        taken = self.number & (1 << count) - 1
        self.number >>= count
        return taken


def read_side(bits: Bits, small: int) -> int:
    """Return a side: a multiple of 8 in 5 bits, or a number with one of four lengths."""
    return (bits.take(5) + 1) * 8 if small else bits.take(SIDE_BITS[bits.take(2)]) + 1


def codestream_start(data: bytes) -> int | None:
    """Return where the pixels begin: the file itself, or the first box of them in a container; None: nowhere."""
    if data.startswith(JXL_CODESTREAM):
        return 0
    place = 0
    while data.startswith(JXL_CONTAINER) and place + 8 <= len(data):
        length, kind, header = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8], 8
        if length == 1:
            length, header = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            return place + header + (4 if kind == b"jxlp" else 0)  # a part has its number first
        if length < header:  # up to the end, or damaged
            return None
        place += length
    return None
