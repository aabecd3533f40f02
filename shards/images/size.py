"""Sizes as people write them: height x width, such as 256x384; one number is a square."""

from __future__ import annotations

import re

Size = tuple[int, int]
"""Height and width, in pixels."""


def parse_size(text: str) -> Size:
    """Return the height and the width of "256x384" or "64".

    Raises:
        ValueError: it is neither.
    """
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip(), re.ASCII)
    if not found or not int(found[1]) or (found[2] and not int(found[2])):
        raise ValueError(f"{text!r} is no number of pixels, such as 64, and no height and width, such as 256x384")
    return int(found[1]), int(found[2] or found[1])


def shape_options(size: Size, channels: int) -> str:
    """Return the options of `shards build` that make pictures of a size and of so many channels."""
    return f"--size {format_size(size)}" + (f" --channels {channels}" if channels != 3 else "")


def format_size(size: Size) -> str:
    """Return a size as `parse_size` reads it."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"
