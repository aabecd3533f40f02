"""Pillow's global limits, formats, errors and EXIF, as `decode_image` needs them."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache

from PIL import Image, PngImagePlugin

from shards.exclusion import Excluded
from shards.images.foreign import NO_DECODER, reason_of
from shards.images.plugins import installed_plugins, is_jxl

OUT_OF_MEMORY = ("out of memory", "insufficient memory", "not enough memory", "cannot allocate", "failed to allocate")
MAX_PROFILE_BYTES = 1 << 26  # bytes, unpacked
ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "FLI")
ORIENTATION = 0x0112  # the EXIF tag


@cache
def decodable_formats() -> tuple[str, ...]:
    """Return the formats to try: all that Pillow decodes without other programs, by itself or by a known plugin."""
    Image.init()
    installed_plugins()
    common = ("JPEG", "PNG", "WEBP", "GIF")  # tried first, which saves time
    return (*common, *(name for name in Image.ID if name not in (*common, *NO_DECODER)))


@dataclass
class Users:
    """The threads that decode now."""

    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    stack: ExitStack = field(default_factory=ExitStack)


USERS = Users()


@contextmanager
def pillow_limits(pixels: int) -> Iterator[None]:
    """Set Pillow's limits, and ignore its warnings, for the `with` block; of several threads, the first one's.

    Pillow raises at twice MAX_IMAGE_PIXELS, also for a picture inside another one. Colour profiles of PNGs count as
    texts, so a large one needs a larger limit of texts. What it warns of is harmless: what matters raises.
    """
    with USERS.lock:
        if not USERS.count:
            USERS.stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            USERS.stack.callback(set_limits, Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK)
            set_limits(-(-pixels // 2), MAX_PROFILE_BYTES)
        USERS.count += 1
    try:
        yield
    finally:
        with USERS.lock:
            USERS.count -= 1
            if not USERS.count:
                USERS.stack.close()


def set_limits(pixels: int | None, text_bytes: int) -> None:
    """Set Pillow's limits, which are global."""
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = pixels, text_bytes


def explain_error(data: bytes, error: Exception) -> Excluded:
    """Return the reason for an error of a decoder.

    Raises:
        MemoryError: the error says in its own words that memory ran out.
    """
    text = f"{type(error).__name__}: {error}"
    if any(words in text.lower() for words in OUT_OF_MEMORY):
        raise MemoryError(text) from error
    if data[12:16] == b"CgBI":
        return Excluded("unsupported", "a PNG as Apple packs it for its devices (CgBI)")
    if is_jxl(data):  # its decoder has one message for everything
        return Excluded("damaged", "JPEG XL: damaged, or it ends too early")
    promised = 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(b"RIFF") and len(data) < promised:  # libwebp does not say that the file is truncated
        return Excluded("truncated", f"{len(data)} of {promised} bytes")
    return Excluded(reason_of(error), text)


def has_more_frames(image: Image.Image) -> bool:
    """Return whether there are more frames or pages; call it last, because seeking changes the picture.

    Frames of other formats than ANIMATED_FORMATS are layers, sizes or previews of the same picture.
    """
    try:
        return image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False)
    except Exception:  # frames after the first may be damaged, and are not used
        return True


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) if there is none or it is damaged. load() turns TIFFs itself.

    The decoder of JPEG XL turns the picture as well, unless it was made of a JPEG.
    """
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, zlib.error):
        return 1
    return value if isinstance(value, int) else 1
