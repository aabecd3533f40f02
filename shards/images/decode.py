"""Decode any picture to sRGB pixels of one size: `decode_image` loads a frame (frame.py), and fits it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from shards.exclusion import Excluded
from shards.images.color import Flatten, make_flattener, to_eight_bits
from shards.images.decoding import Decoding
from shards.images.encode import MODES, Pixels
from shards.images.fit import crop_box, fitted_size, pad_image
from shards.images.foreign import explain_unreadable
from shards.images.frame import Frame, Frames, load_frame, size_as_it_lies
from shards.images.pillow import explain_error, pillow_limits
from shards.images.png import without_extras

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
class Picture:
    """A decoded picture, and facts about the original."""

    pixels: Pixels  # (height, width, channels)
    width: int  # of the original, upright
    height: int
    mode: str  # of the original, in Pillow's names
    format: str
    notes: frozenset[str] = frozenset()  # keys of exclusion.NOTES


def decode_image(data: bytes, settings: Decoding, frames: Frames | None = None) -> Picture:
    """Decode, make upright, convert to sRGB over the background, and fit.

    A PNG that cannot be decoded is tried again without its optional chunks, which are often all that is damaged.

    Args:
        data: the content of the file.
        settings: how it is decoded.
        frames: what earlier calls have loaded of the same file, with settings that differ in the size alone.

    Raises:
        Excluded: the picture cannot be used.
        MemoryError: the machine has too little memory for it.
    """
    if not data:
        raise Excluded("empty", "0 bytes")
    with pillow_limits(settings.max_pixels):
        try:
            return fit_frame(load_frame(data, settings, {} if frames is None else frames), settings)
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
                picture = fit_frame(load_frame(bare, settings, {}), settings)
            except (Excluded, MemoryError):
                raise
            except Exception:  # the first failure describes the file better
                continue
            return replace(picture, notes=picture.notes | {"extras_ignored"})
        raise failure


def fit_frame(frame: Frame, settings: Decoding) -> Picture:
    """Convert a frame to sRGB over the background, fit it, and make it upright."""
    notes = set(frame.notes)
    # It is turned at the end: of the small picture that costs less.
    lying = replace(settings, size=size_as_it_lies(settings.size, frame.orientation))
    background = None if settings.channels == 4 else settings.background
    flatten = make_flattener(frame.image, background, notes)
    small = resize_image(frame.pixels, flatten, frame.extent, lying, frame.orientation, notes)
    width, height = size_as_it_lies((frame.width, frame.height), frame.orientation)
    if (turn := UPRIGHT.get(frame.orientation)) is not None:
        small = small.transpose(turn)
    padded = pad_image(small, settings.size, settings.background if settings.channels != 4 else (0, 0, 0, 0))
    pixels = to_channels(padded, settings.channels)
    return Picture(pixels, width, height, frame.mode, frame.format, frozenset(notes))


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


def to_channels(image: Image.Image, channels: int) -> Pixels:
    """Return the pixels of RGB, or of premultiplied RGBa for four channels: (h, w, channels)."""
    if channels != 4:
        pixels = np.asarray(image if channels == 3 else image.convert(MODES[channels]))
        return pixels.reshape(*pixels.shape[:2], channels)
    pixels = np.array(image.convert("RGBA"))
    pixels[pixels[..., 3] == 0] = 0  # colours that nobody sees would be noise in the shards
    return pixels
