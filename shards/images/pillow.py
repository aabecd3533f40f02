"""Pillow's settings and answers, as decoding needs them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from PIL import Image, PngImagePlugin

from shards.images.exclusion import Excluded
from shards.images.foreign import NO_DECODER, reason_of

OUT_OF_MEMORY = ("out of memory", "insufficient memory", "not enough memory", "cannot allocate", "failed to allocate")
LARGEST_PROFILE = 1 << 26  # bytes, unpacked
WITH_FRAMES = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "FLI")
ORIENTATION = 0x0112  # the EXIF tag


@cache
def formats() -> tuple[str, ...]:
    """Return the formats to try: all that Pillow decodes by itself."""
    Image.init()
    common = ("JPEG", "PNG", "WEBP", "GIF")  # tried first, which saves time
    return (*common, *(name for name in Image.ID if name not in (*common, *NO_DECODER)))


@contextmanager
def limits(pixels: int) -> Iterator[None]:
    """Set the limit at which Pillow itself refuses a picture, or one that is hidden inside: twice its variable. Let it
    unpack large colour profiles, which it counts as texts."""
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = -(-pixels // 2), LARGEST_PROFILE
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = before


def explained(data: bytes, error: Exception) -> Excluded:
    """Return the reason for an error of a decoder.

    Raises:
        MemoryError: it says that memory ran out, in its own way.
    """
    text = f"{type(error).__name__}: {error}"
    if any(words in text.lower() for words in OUT_OF_MEMORY):
        raise MemoryError(text) from error
    if data[12:16] == b"CgBI":
        return Excluded("unsupported", "a PNG as Apple packs it for its devices (CgBI)")
    promised = 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(b"RIFF") and len(data) < promised:  # the decoder of WebP says only that it cannot begin
        return Excluded("truncated", f"{len(data)} of {promised} bytes")
    return Excluded(reason_of(error), text)


def has_more_frames(image: Image.Image) -> bool:
    """Tell whether there are other frames or pages; looking for them changes the picture. Those of other formats are
    layers, sizes and previews of the one picture."""
    try:
        return image.format in WITH_FRAMES and getattr(image, "is_animated", False)
    except Exception:  # what follows the first frame may be damaged, which is no matter
        return True


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, when there is none or it is damaged. Pillow turns TIFFs in load()."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, zlib.error):
        return 1
    return value if isinstance(value, int) else 1
