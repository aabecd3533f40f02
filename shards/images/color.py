"""Convert pixels of any of Pillow's modes, with or without a colour profile, to sRGB over a background."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from shards.images.tiff import is_inverted, tiff_values

Flatten = Callable[[Image.Image], Image.Image]
RGB = tuple[int, int, int]

PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile -> mode of its pixels
# The usual ranges of float and integer pixels; a picture has the first one that holds all of its values.
RANGES = {"F": ((0.0, 1.0), (0.0, 255.0)), "I": ((0.0, 65535.0),)}


def to_eight_bits(image: Image.Image, notes: set[str]) -> Image.Image:
    """Return pictures of 16 or 32 bits a pixel in mode "L", scaled and never clipped; others unchanged.

    Integers are taken as 0 to 65535, floats as 0 to 1 or else 0 to 255, if all values lie within; else the least value
    becomes 0 and the greatest 255.

    Raises:
        ValueError: a pixel is NaN or infinite.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    known = None
    if isinstance(image, TiffImageFile):
        values, known = tiff_values(image, notes)
    else:
        values = np.asarray(image, dtype=np.float64)
    low, high = known or value_range(values, RANGES[image.mode[0]], notes)
    if isinstance(image, TiffImageFile) and is_inverted(image):
        low, high = high, low
    scale = 255.0 / (high - low)
    small = Image.fromarray(np.rint((values - low) * scale).astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):
        small.info["transparency"] = round((transparent - low) * scale)
    return small


def value_range(
    values: npt.NDArray[np.float64], ranges: tuple[tuple[float, float], ...], notes: set[str]
) -> tuple[float, float]:
    """Return the first of the ranges that holds all values, else the least and the greatest value."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("pixels that are not numbers")
    fitting = [known for known in ranges if known[0] <= low and high <= known[1]]
    notes.add("scaled" if fitting else "spread")
    return fitting[0] if fitting else (low, max(high, low + 1))


def make_flattener(image: Image.Image, background: RGB | None, notes: set[str]) -> Flatten | None:
    """Return the function that converts pieces of this picture (after `to_eight_bits`) to sRGB over the background.

    None: it is plain RGB already. Without a background transparency stays: the function then makes premultiplied sRGB,
    Pillow's mode RGBa, in which pixels can be averaged.
    """
    profile = image.info.get("icc_profile")
    transform = None
    if image.mode == "LAB":
        transform = lab_transform()
    elif isinstance(profile, bytes) and profile:
        try:
            transform = profile_transform(profile, image.mode == "CMYK")
        except (OSError, ImageCms.PyCMSError):
            notes.add("profile_ignored")
    if transform is None and image.mode == "CMYK":
        notes.add("cmyk_by_formula")
    if background is None:
        return partial(keep_alpha, transform=transform)
    if transform is None and image.mode == "RGB" and not image.has_transparency_data:
        return None
    return partial(flatten, transform=transform, background=background)


def flatten(image: Image.Image, transform: ImageCms.ImageCmsTransform | None, background: RGB) -> Image.Image:
    """Convert pixels of 8 bits to sRGB over the background."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image, alpha = with_transform(rgba.convert("RGB"), transform), rgba.getchannel("A")
        square = Image.new("RGB", image.size, background)
        # After the transform: a profile is of the picture's own colours, and the background is sRGB already.
        square.paste(image, mask=alpha)
        return square
    return with_transform(image, transform)


def keep_alpha(image: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """Convert pixels of 8 bits to premultiplied sRGB; of a picture without transparency alpha is 255."""
    if not image.has_transparency_data:
        return with_transform(image, transform).convert("RGBA").convert("RGBa")
    rgba = image.convert("RGBA")
    colours = with_transform(rgba.convert("RGB"), transform)
    return Image.merge("RGBA", (*colours.split(), rgba.getchannel("A"))).convert("RGBa")


def with_transform(image: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """Convert to sRGB: by the transform where it fits the pixels, else by Pillow's formulas."""
    if image.mode in ("P", "PA", "RGBX", "YCbCr", "HSV", "1"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if transform is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode != transform.input_mode:  # such as a grey picture with an RGB profile
        image = image.convert(transform.input_mode)
    return transform.apply(image)


@lru_cache(maxsize=16)
def profile_transform(profile: bytes, cmyk: bool) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from an ICC profile to sRGB; None when it is sRGB.

    Raises:
        OSError, PyCMSError: the profile is damaged, or of another colour space than the pixels.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = PROFILE_MODES.get(source.profile.xcolor_space)
    if mode is None or (mode == "CMYK") != cmyk:
        raise OSError(f"a profile of {source.profile.xcolor_space!r} for other pixels")
    # A transform from sRGB to sRGB would change pixels by rounding.
    return None if "sRGB" in (source.profile.profile_description or "") else to_srgb(source, mode)


@lru_cache(maxsize=1)
def lab_transform() -> ImageCms.ImageCmsTransform:
    """Return the transform from CIE L*a*b* to sRGB."""
    return to_srgb(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


def to_srgb(profile: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    """Build a transform: relative colorimetric with black point compensation, as most programs do."""
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)
