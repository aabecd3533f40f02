"""Load the pixels of a picture as they lie in its file; several sizes of the result may share them."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from shards.exclusion import Excluded
from shards.images.decoding import Decoding
from shards.images.fit import fitted_size
from shards.images.jpeg import load_jpeg
from shards.images.pillow import decodable_formats, exif_orientation, has_more_frames
from shards.images.plugins import jxl_size
from shards.images.png import correct_transparency
from shards.images.size import Size
from shards.images.tiff import load_tiff

SIDES_CHANGED = (5, 6, 7, 8)  # of these, height and width change places


@dataclass(frozen=True)
class Frame:
    """The pixels of a picture as they lie in its file."""

    image: Image.Image
    """As it was opened, with profile and transparency."""
    format: str
    pixels: Image.Image
    extent: tuple[float, float]
    """Exact width and height of the pixels: see `load_pixels`."""
    width: int  # of the original
    height: int
    mode: str  # of the original
    orientation: int
    notes: frozenset[str]


Frames = dict[tuple[int, int], Frame]
"""The newest one of a picture, by the size at which it was loaded: JPEGs are shrunk for small results, others not."""


def load_frame(data: bytes, settings: Decoding, frames: Frames) -> Frame:
    """Load the pixels, or return them if `frames` has them; errors are those of Pillow's plugins."""
    if (size := jxl_size(data)) and size[0] * size[1] > settings.max_pixels:  # the plugin would decode it to open it
        raise Excluded("too_many_pixels", f"{size[0]} x {size[1]} is more than {settings.max_pixels} (--max-pixels)")
    with Image.open(io.BytesIO(data), formats=decodable_formats()) as image:
        width, height = image.size
        check_sides(width, height, settings)
        mode, extent, notes = image.mode, draft_extent(image, settings), set[str]()
        loaded_size = image.size  # now, as loading a TIFF may turn it
        if loaded_size in frames:
            return frames[loaded_size]
        pixels = load_pixels(image, data, notes)
        if image.format == "GIF":  # looking for more frames takes the pixels of this one away
            opened = pixels = image.copy()
        else:
            opened = image
        if has_more_frames(image):
            notes.add("first_frame")
        orientation = exif_orientation(image)
        frame = Frame(opened, image.format or "?", pixels, extent, width, height, mode, orientation, frozenset(notes))
    frames.clear()  # the next size can only share the newest: another scale is seldom needed twice, and takes memory
    frames[loaded_size] = frame
    return frame


def check_sides(width: int, height: int, settings: Decoding) -> None:
    """Check the size of a picture before its pixels are loaded.

    Raises:
        Excluded: it has too many pixels, or sides that are not wanted.
    """
    if width * height > settings.max_pixels:
        detail = f"{width} x {height} is more than {settings.max_pixels} pixels (--max-pixels)"
        raise Excluded("too_many_pixels", detail)
    if min(width, height) < settings.min_size:
        raise Excluded("too_small", f"{width} x {height}, and --min-size is {settings.min_size}")
    if settings.max_aspect is not None and max(width, height) > settings.max_aspect * min(width, height):
        raise Excluded("too_elongated", f"{width} x {height}, and --max-aspect is {settings.max_aspect:g}")


def draft_extent(image: Image.Image, settings: Decoding) -> tuple[float, float]:
    """Let a JPEG be loaded at 1/2, 1/4 or 1/8 of its size where that is enough; return the exact extent of the pixels.

    It is up to one pixel shorter than `image.size`, which libjpeg rounds up. Using the rounded size would shift and
    stretch the picture by part of a pixel, which costs more fidelity than scaled decoding itself: 10 to 15 dB.
    """
    scaled = None
    if settings.scaled_decode:
        lying = size_as_it_lies(settings.size, jpeg_orientation(image))
        width, height = fitted_size(*image.size, lying, settings.fit)
        scaled = image.draft(image.mode, (settings.scaled_decode * width, settings.scaled_decode * height))
    return scaled[1][2:] if scaled else image.size


def load_pixels(image: Image.Image, data: bytes, notes: set[str]) -> Image.Image:
    """Load the pixels of an opened picture.

    Args:
        image: perhaps to be loaded at a reduced size.
        data: the content of the file.
        notes: to add to.
    """
    if isinstance(image, JpegImageFile):
        pixels, warning = load_jpeg(data, image.mode, image.size)
        if warning:
            notes.add("harmless_warning")
        if pixels is not None:
            return pixels
    if isinstance(image, TiffImageFile):
        load_tiff(image, data, notes)
    else:
        image.load()
    if isinstance(image, PngImageFile):
        correct_transparency(image, data)
    return image


def jpeg_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation where it is known before the pixels are loaded: only JPEGs are shrunk as they are."""
    return exif_orientation(image) if isinstance(image, JpegImageFile) else 1


def size_as_it_lies(size: Size, orientation: int) -> Size:
    """Return the sides of the upright picture in the order in which they lie in the file."""
    return size[::-1] if orientation in SIDES_CHANGED else size
