"""From the bytes of any picture to `size` x `size` sRGB pixels: `decode` is the whole path, in its order."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from shards.color import Flatten, flattener, to_eight_bits
from shards.exclusion import Excluded

Fit = Literal["crop", "pad", "stretch"]
Box = tuple[float, float, float, float]

STRIP_PIXELS = 1 << 22  # of a large picture so many pixels are converted at a time
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoding:
    """What pictures become."""

    size: int
    """Height and width of the result."""
    fit: Fit
    background: tuple[int, int, int]
    """RGB, behind transparent pixels and beside padded pictures."""
    scaled_decode: int
    """Shrink cheaply (JPEG's own scaling, boxes) to no less than so many times `size` before filtering; 0: never."""
    max_pixels: int
    min_size: int


@dataclass(frozen=True)
class Picture:
    """A decoded picture and what it was."""

    pixels: npt.NDArray[np.uint8]  # (size, size, 3)
    width: int  # as it was, upright
    height: int
    mode: str  # of Pillow
    format: str


@cache
def formats() -> tuple[str, ...]:
    """Return the formats to try: all of Pillow's but EPS, a program that an external interpreter would have to run."""
    Image.init()
    common = ("JPEG", "PNG", "WEBP", "GIF")  # tried first, which saves time
    return (*common, *(name for name in Image.ID if name not in (*common, "EPS")))


def decode(data: bytes, settings: Decoding) -> Picture:
    """Decode, make upright, convert to sRGB over the background, and fit.

    Raises:
        Excluded: the picture cannot be used.
        MemoryError: the machine has too little memory for it.
    """
    if not data:
        raise Excluded("empty", "0 bytes")
    with warnings.catch_warnings(), pixel_limit(settings.max_pixels):
        warnings.simplefilter("ignore")  # what matters of a picture's oddities raises, or is of no interest
        try:
            return decode_frame(data, settings)
        except (Excluded, MemoryError):
            raise
        except UnidentifiedImageError:
            raise Excluded("not_an_image", f"starts with {data[:16]!r}") from None
        except Image.DecompressionBombError as error:
            raise Excluded("too_many_pixels", f"{error} (--max-pixels)") from error
        except Exception as error:  # hostile bytes raise anything: SyntaxError, struct.error, IndexError...
            raise Excluded(reason_of(error), f"{type(error).__name__}: {error}") from error


@contextmanager
def pixel_limit(pixels: int) -> Iterator[None]:
    """Set the limit at which Pillow itself refuses a picture, or one that is hidden inside: twice its variable."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = -(-pixels // 2)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def reason_of(error: Exception) -> str:
    """Tell a file that ends too early from one that is damaged."""
    early = isinstance(error, EOFError) or "truncated" in str(error).lower()
    return "truncated" if early else "unreadable"


def decode_frame(data: bytes, settings: Decoding) -> Picture:
    """Do what `decode` does; errors are those of Pillow's plugins."""
    with Image.open(io.BytesIO(data), formats=formats()) as image:
        width, height = image.size
        if width * height > settings.max_pixels:
            detail = f"{width} x {height} is more than {settings.max_pixels} pixels (--max-pixels)"
            raise Excluded("too_many_pixels", detail)
        if min(width, height) < settings.min_size:
            raise Excluded("too_small", f"{width} x {height}, and --min-size is {settings.min_size}")
        mode, format = image.mode, image.format or "?"
        extent = load(image, settings)
        turn = UPRIGHT.get(orientation(image))
        small = resize(image, extent, settings)
    if turn is not None:
        small = small.transpose(turn)
        if turn not in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM):
            width, height = height, width
    return Picture(np.asarray(pad(small, settings)), width, height, mode, format)


def load(image: Image.Image, settings: Decoding) -> tuple[float, float]:
    """Decode, a JPEG perhaps at 1/2, 1/4 or 1/8 of its size, and return the width and height that it has then.

    They are fractions of a pixel shorter than `image.size`, which libjpeg rounds up. Taking that for the picture's size
    would shift and stretch it by part of a pixel, and cost more than the scaled decoding itself: 10 to 15 dB.
    """
    scaled = None
    if settings.scaled_decode:
        width, height = fitted_size(*image.size, settings)
        scaled = image.draft(image.mode, (settings.scaled_decode * width, settings.scaled_decode * height))
    image.load()
    return scaled[1][2:] if scaled else image.size


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, when there is none or it is damaged. Pillow turns TIFFs in load()."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, zlib.error):
        return 1
    return value if isinstance(value, int) else 1


def fitted_size(width: float, height: float, settings: Decoding) -> tuple[int, int]:
    """Return the size that the whole picture, before it is cropped or padded, is scaled to."""
    size = settings.size
    if settings.fit == "stretch":
        return size, size
    side = min(width, height) if settings.fit == "crop" else max(width, height)
    return max(1, round(width * size / side)), max(1, round(height * size / side))


def resize(image: Image.Image, extent: tuple[float, float], settings: Decoding) -> Image.Image:
    """Convert to sRGB and filter to the final size (of the longer side, when the picture is to be padded)."""
    width, height = extent
    target = fitted_size(width, height, settings)
    gap = settings.scaled_decode
    factor = max(1, int(min(width / (gap * target[0]), height / (gap * target[1])))) if gap else 1
    small = shrink(to_eight_bits(image), flattener(image, settings.background), factor)
    box: Box = (0, 0, width / factor, height / factor)
    if settings.fit == "crop":
        side = min(box[2:])
        left, top = (box[2] - side) / 2, (box[3] - side) / 2
        box, target = (left, top, left + side, top + side), (settings.size, settings.size)
    return small.resize(target, Image.Resampling.LANCZOS, box)


def shrink(image: Image.Image, flatten: Flatten | None, factor: int) -> Image.Image:
    """Flatten, and average each block of factor x factor pixels, strip by strip: the decoded picture stays the only
    large thing in memory."""
    if flatten is None:
        return image.reduce(factor) if factor > 1 else image
    width, height = image.size
    small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = max(1, STRIP_PIXELS // (width * factor)) * factor
    for top in range(0, height, rows):
        strip = flatten(image.crop((0, top, width, min(top + rows, height))))
        small.paste(strip.reduce(factor) if factor > 1 else strip, (0, top // factor))
    return small


def pad(image: Image.Image, settings: Decoding) -> Image.Image:
    """Centre the picture on a square of background."""
    size = settings.size
    if image.size == (size, size):
        return image
    square = Image.new("RGB", (size, size), settings.background)
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square
