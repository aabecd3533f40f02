"""Decode any picture to `size` x `size` sRGB pixels: `decode_image` runs all steps, in the order of this file."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from shards.exclusion import Excluded
from shards.images.color import Flatten, make_flattener, to_eight_bits
from shards.images.foreign import explain_unreadable
from shards.images.jpeg import load_jpeg
from shards.images.pillow import decodable_formats, exif_orientation, explain_error, has_more_frames, pillow_limits
from shards.images.plugins import jxl_size
from shards.images.png import correct_transparency, without_extras
from shards.images.tiff import load_tiff

Fit = Literal["crop", "pad", "stretch"]
Box = tuple[float, float, float, float]

STRIP_PIXELS = 1 << 22  # converted at a time, so that a large picture is in memory once and not several times
UPRIGHT = {  # EXIF orientation -> what makes the picture upright
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
    """How pictures are decoded."""

    size: int
    """Height and width of the result."""
    fit: Fit
    background: tuple[int, int, int]
    """RGB, behind transparent pixels and beside padded pictures."""
    scaled_decode: int
    """Before filtering, shrink cheaply (JPEG's own scaling, boxes) to at least so many times `size`; 0: never."""
    max_pixels: int
    min_size: int


@dataclass(frozen=True)
class Picture:
    """A decoded picture, and facts about the original."""

    pixels: npt.NDArray[np.uint8]  # (size, size, 3)
    width: int  # of the original, upright
    height: int
    mode: str  # of the original, in Pillow's names
    format: str
    notes: frozenset[str] = frozenset()  # keys of exclusion.NOTES


def decode_image(data: bytes, settings: Decoding) -> Picture:
    """Decode, make upright, convert to sRGB over the background, and fit.

    A PNG that cannot be decoded is tried again without its optional chunks, which are often all that is damaged.

    Raises:
        Excluded: the picture cannot be used.
        MemoryError: the machine has too little memory for it.
    """
    if not data:
        raise Excluded("empty", "0 bytes")
    with warnings.catch_warnings(), pillow_limits(settings.max_pixels):
        warnings.simplefilter("ignore")  # Pillow warns of what is harmless; what matters raises
        try:
            return decode_frame(data, settings)
        except (Excluded, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise Excluded("too_many_pixels", f"{error} (--max-pixels)") from error
        except Exception as error:  # hostile bytes raise anything: SyntaxError, struct.error, IndexError...
            failure = (
                explain_unreadable(data) if isinstance(error, UnidentifiedImageError) else explain_error(data, error)
            )
        for bare in without_extras(data):
            try:
                picture = decode_frame(bare, settings)
            except (Excluded, MemoryError):
                raise
            except Exception:  # the first failure describes the file better
                continue
            return replace(picture, notes=picture.notes | {"extras_ignored"})
        raise failure


def decode_frame(data: bytes, settings: Decoding) -> Picture:
    """Decode without a second try; errors are those of Pillow's plugins."""
    notes: set[str] = set()
    if (size := jxl_size(data)) and size[0] * size[1] > settings.max_pixels:  # the plugin would decode it to open it
        raise Excluded("too_many_pixels", f"{size[0]} x {size[1]} is more than {settings.max_pixels} (--max-pixels)")
    with Image.open(io.BytesIO(data), formats=decodable_formats()) as image:
        width, height = image.size
        if width * height > settings.max_pixels:
            detail = f"{width} x {height} is more than {settings.max_pixels} pixels (--max-pixels)"
            raise Excluded("too_many_pixels", detail)
        if min(width, height) < settings.min_size:
            raise Excluded("too_small", f"{width} x {height}, and --min-size is {settings.min_size}")
        mode, format = image.mode, image.format or "?"
        pixels, extent = load_pixels(image, data, settings, notes)
        # Read here, done below: of the small picture it costs less.
        turn = UPRIGHT.get(exif_orientation(image))
        small = resize_image(pixels, make_flattener(image, settings.background, notes), extent, settings, notes)
        if has_more_frames(image):
            notes.add("first_frame")
    if turn is not None:
        small = small.transpose(turn)
        if turn not in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM):
            width, height = height, width
    return Picture(np.asarray(pad_image(small, settings)), width, height, mode, format, frozenset(notes))


def load_pixels(
    image: Image.Image, data: bytes, settings: Decoding, notes: set[str]
) -> tuple[Image.Image, tuple[float, float]]:
    """Load the pixels, of a JPEG perhaps at 1/2, 1/4 or 1/8 of its size; return them and their exact extent.

    The extent is up to one pixel shorter than `image.size`, which libjpeg rounds up. Using the rounded size would shift
    and stretch the picture by part of a pixel, which costs more fidelity than scaled decoding itself: 10 to 15 dB.
    """
    scaled = None
    if settings.scaled_decode:
        width, height = fitted_size(*image.size, settings)
        scaled = image.draft(image.mode, (settings.scaled_decode * width, settings.scaled_decode * height))
    extent = scaled[1][2:] if scaled else image.size
    if isinstance(image, JpegImageFile):
        pixels, warning = load_jpeg(data, image.mode, image.size)
        if warning:
            notes.add("harmless_warning")
        if pixels is not None:
            return pixels, extent
    if isinstance(image, TiffImageFile):
        load_tiff(image, data, notes)
    else:
        image.load()
    if isinstance(image, PngImageFile):
        correct_transparency(image, data)
    return image, extent


def fitted_size(width: float, height: float, settings: Decoding) -> tuple[int, int]:
    """Return the size to which the whole picture is scaled before it is cropped or padded."""
    size = settings.size
    if settings.fit == "stretch":
        return size, size
    side = min(width, height) if settings.fit == "crop" else max(width, height)
    return max(1, round(width * size / side)), max(1, round(height * size / side))


def resize_image(
    image: Image.Image, flatten: Flatten | None, extent: tuple[float, float], settings: Decoding, notes: set[str]
) -> Image.Image:
    """Convert to sRGB, and filter to the final size; a picture that will be padded keeps its aspect ratio."""
    width, height = extent
    target = fitted_size(width, height, settings)
    gap = settings.scaled_decode
    factor = max(1, int(min(width / (gap * target[0]), height / (gap * target[1])))) if gap else 1
    small = average_blocks(to_eight_bits(image, notes), flatten, factor)
    # In fractions of a pixel: rounded, it would shift and stretch the picture.
    box: Box = (0, 0, width / factor, height / factor)
    if settings.fit == "crop":
        side = min(box[2:])
        left, top = (box[2] - side) / 2, (box[3] - side) / 2
        box, target = (left, top, left + side, top + side), (settings.size, settings.size)
    return small.resize(target, Image.Resampling.LANCZOS, box).convert("RGB")


def average_blocks(image: Image.Image, flatten: Flatten | None, factor: int) -> Image.Image:
    """Flatten, and average each block of factor x factor pixels.

    This goes strip by strip, so that the decoded picture stays the only large object in memory.
    """
    if flatten is None:
        return image.reduce(factor) if factor > 1 else image
    width, height = image.size
    small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = max(1, STRIP_PIXELS // (width * factor)) * factor
    for top in range(0, height, rows):
        strip = flatten(image.crop((0, top, width, min(top + rows, height))))
        small.paste(strip.reduce(factor) if factor > 1 else strip, (0, top // factor))
    return small


def pad_image(image: Image.Image, settings: Decoding) -> Image.Image:
    """Centre the picture on a square of background."""
    size = settings.size
    if image.size == (size, size):
        return image
    square = Image.new("RGB", (size, size), settings.background)
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square
