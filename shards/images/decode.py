"""Decode any picture to sRGB pixels of one size: `decode_image` runs all steps, in the order of this file."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from shards.exclusion import Excluded
from shards.images.color import Flatten, make_flattener, to_eight_bits
from shards.images.encode import MODES, Pixels
from shards.images.fit import Crop, Fit, crop_box, fitted_size, pad_image
from shards.images.foreign import explain_unreadable
from shards.images.jpeg import load_jpeg
from shards.images.pillow import decodable_formats, exif_orientation, explain_error, has_more_frames, pillow_limits
from shards.images.plugins import jxl_size
from shards.images.png import correct_transparency, without_extras
from shards.images.size import Size
from shards.images.tiff import load_tiff

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
SIDES_CHANGED = (5, 6, 7, 8)  # of these, height and width change places


@dataclass(frozen=True)
class Decoding:
    """How pictures are decoded."""

    size: Size
    """Height and width of the result."""
    fit: Fit
    background: tuple[int, int, int]
    """RGB, behind transparent pixels and beside padded pictures; with four channels both are transparent."""
    scaled_decode: int
    """Before filtering, shrink cheaply (JPEG's own scaling, boxes) to at least so many times `size`; 0: never."""
    max_pixels: int
    min_size: int
    channels: int = 3
    """1: grey, 3: RGB, 4: RGBA."""
    crop: Crop = "centre"
    """Which part of a picture is taken with `fit` crop."""
    max_aspect: float | None = None
    """The longer side over the shorter one, at most."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, and facts about the original."""

    pixels: Pixels  # (height, width, channels)
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
    with pillow_limits(settings.max_pixels):
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
        if settings.max_aspect is not None and max(width, height) > settings.max_aspect * min(width, height):
            raise Excluded("too_elongated", f"{width} x {height}, and --max-aspect is {settings.max_aspect:g}")
        mode, format = image.mode, image.format or "?"
        loaded, extent = load_pixels(image, data, settings, notes)
        # Read here, done below: of the small picture it costs less.
        orientation = exif_orientation(image)
        lying = replace(settings, size=size_as_it_lies(settings.size, orientation))
        background = None if settings.channels == 4 else settings.background
        flatten = make_flattener(image, background, notes)
        small = resize_image(loaded, flatten, extent, lying, orientation, notes)
        if has_more_frames(image):
            notes.add("first_frame")
    if (turn := UPRIGHT.get(orientation)) is not None:
        small = small.transpose(turn)
        width, height = size_as_it_lies((width, height), orientation)
    padded = pad_image(small, settings.size, settings.background if settings.channels != 4 else (0, 0, 0, 0))
    pixels = to_channels(padded, settings.channels)
    return Picture(pixels, width, height, mode, format, frozenset(notes))


def size_as_it_lies(size: Size, orientation: int) -> Size:
    """Return the sides of the upright picture in the order in which they lie in the file."""
    return size[::-1] if orientation in SIDES_CHANGED else size


def to_channels(image: Image.Image, channels: int) -> Pixels:
    """Return the pixels of RGB, or of premultiplied RGBa for four channels: (h, w, channels)."""
    if channels != 4:
        pixels = np.asarray(image if channels == 3 else image.convert(MODES[channels]))
        return pixels.reshape(*pixels.shape[:2], channels)
    pixels = np.array(image.convert("RGBA"))
    pixels[pixels[..., 3] == 0] = 0  # colours that nobody sees would be noise in the shards
    return pixels


def load_pixels(
    image: Image.Image, data: bytes, settings: Decoding, notes: set[str]
) -> tuple[Image.Image, tuple[float, float]]:
    """Load the pixels, of a JPEG perhaps at 1/2, 1/4 or 1/8 of its size; return them and their exact extent.

    The extent is up to one pixel shorter than `image.size`, which libjpeg rounds up. Using the rounded size would shift
    and stretch the picture by part of a pixel, which costs more fidelity than scaled decoding itself: 10 to 15 dB.
    """
    scaled = None
    if settings.scaled_decode:
        lying = size_as_it_lies(settings.size, jpeg_orientation(image))
        width, height = fitted_size(*image.size, lying, settings.fit)
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


def jpeg_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation where it is known before the pixels are loaded: only JPEGs are shrunk as they are."""
    return exif_orientation(image) if isinstance(image, JpegImageFile) else 1


def resize_image(
    image: Image.Image,
    flatten: Flatten | None,
    extent: tuple[float, float],
    settings: Decoding,
    orientation: int,
    notes: set[str],
) -> Image.Image:
    """Convert to sRGB, and filter to the final size; a picture that will be padded keeps its aspect ratio.

    Args:
        image, extent: the pixels, as they lie in the file, and their exact extent.
        flatten: converts them.
        settings: with the size as the picture lies.
        orientation: of EXIF.
        notes: to add to.
    """
    width, height = extent
    target = fitted_size(width, height, settings.size, settings.fit)
    gap = settings.scaled_decode
    factor = max(1, int(min(width / (gap * target[0]), height / (gap * target[1])))) if gap else 1
    mode = "RGBa" if settings.channels == 4 else "RGB"
    small = average_blocks(to_eight_bits(image, notes), flatten, factor, mode)
    # In fractions of a pixel: rounded, it would shift and stretch the picture.
    box = 0.0, 0.0, width / factor, height / factor
    if settings.fit == "crop":
        box = crop_box(small, box[2:], settings.size, settings.crop, orientation)
        target = settings.size[1], settings.size[0]
    return small.resize(target, Image.Resampling.LANCZOS, box).convert(mode)


def average_blocks(image: Image.Image, flatten: Flatten | None, factor: int, mode: str) -> Image.Image:
    """Flatten to a mode, and average each block of factor x factor pixels.

    This goes strip by strip, so that the decoded picture stays the only large object in memory.
    """
    if flatten is None:
        return image.reduce(factor) if factor > 1 else image
    width, height = image.size
    small = Image.new(mode, (-(-width // factor), -(-height // factor)))
    rows = max(1, STRIP_PIXELS // (width * factor)) * factor
    for top in range(0, height, rows):
        strip = flatten(image.crop((0, top, width, min(top + rows, height))))
        small.paste(strip.reduce(factor) if factor > 1 else strip, (0, top // factor))
    return small
