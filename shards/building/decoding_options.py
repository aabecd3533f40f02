"""The options of `shards build` and `shards index` that say how pictures are decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import simplejpeg
from PIL import ImageColor, __version__, features

from shards.errors import DataError
from shards.images.decoding import Decoding
from shards.images.fit import Crop, Fit
from shards.images.plugins import installed_plugins
from shards.images.size import Size, parse_size


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How pictures are decoded; their size is an option of each command."""

    channels: Literal[1, 3, 4] = 3
    """1: grey, 3: RGB, 4: RGBA, of which transparency is kept."""
    fit: Fit = "crop"
    """"crop" a part of the shape of --size, "pad" to it with the background, or "stretch"."""
    crop: Crop = "centre"
    """What --fit crop takes: the "centre", the "top", or the part with the highest "entropy" of its grey levels."""
    background: str = "#ffffff"
    """The colour behind transparent pixels and beside padded pictures; with --channels 4 both are transparent."""
    scaled_decode: int = 3
    """Shrink cheaply, by JPEG's own scaling or averaged boxes, to no less than so many times --size, and filter that;
    0: filter each picture at its full size."""
    max_pixels: int = 2 * 89_478_485
    """Exclude larger pictures; by default those that Pillow calls decompression bombs."""
    max_bytes: int = 1 << 28
    """Exclude longer files and members of archives."""
    min_size: int = 16
    """Exclude pictures with a shorter side."""
    max_aspect: float | None = None
    """Exclude pictures whose longer side is more than so many times the shorter one."""


def check_decoding(args: DecodingOptions) -> None:
    """Check the options.

    Raises:
        DataError: naming the first one that is impossible.
    """
    background_of(args)
    if args.crop != "centre" and args.fit != "crop":
        raise DataError(f"--crop {args.crop} is of --fit crop, and --fit is {args.fit}: leave one of them out")
    if args.max_aspect is not None and not 1 <= args.max_aspect < math.inf:
        raise DataError(f"--max-aspect is a longer side over a shorter one, from 1, but got {args.max_aspect}")
    least = {"scaled_decode": 0, "max_pixels": 1, "max_bytes": 1, "min_size": 1}
    for name, low in least.items():
        if getattr(args, name) < low:
            raise DataError(f"--{name.replace('_', '-')} must be at least {low}, but got {getattr(args, name)}")


def read_size(text: str) -> Size:
    """Return the height and width that --size names, such as "64" or "256x384".

    Raises:
        DataError: it is no size.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise DataError(f"--size: {error}") from None


def background_of(args: DecodingOptions) -> tuple[int, int, int]:
    """Return the background as RGB, 0 to 255.

    Raises:
        DataError: it is no colour.
    """
    try:
        red, green, blue, *_ = ImageColor.getrgb(args.background)
    except ValueError:
        raise DataError(f"--background must be a colour such as '#ffffff', but got {args.background!r}") from None
    return red, green, blue


def decoding_of(args: DecodingOptions, size: Size) -> Decoding:
    """Return how pictures are decoded."""
    return Decoding(
        size=size,
        fit=args.fit,
        background=background_of(args),
        scaled_decode=args.scaled_decode,
        max_pixels=args.max_pixels,
        min_size=args.min_size,
        channels=args.channels,
        crop=args.crop,
        max_aspect=args.max_aspect,
    )


def decoding_settings(args: DecodingOptions, size: Size) -> dict[str, Any]:
    """Return what determines the pixels, for the index."""
    height, width = size
    # Absent where there are none; an index keeps those whose formats are in the dataset.
    plugins = installed_plugins()
    return ({"plugins": plugins} if plugins else {}) | {
        "height": height,
        "width": width,
        "channels": args.channels,
        "fit": args.fit,
        "crop": args.crop,
        "background": "#{:02x}{:02x}{:02x}".format(*background_of(args)),
        "filter": "lanczos",
        "scaled_decode": args.scaled_decode,
        "max_pixels": args.max_pixels,
        "max_bytes": args.max_bytes,
        "min_size": args.min_size,
        "max_aspect": args.max_aspect,
        "pillow": __version__,
        "libjpeg_turbo": features.version_feature("libjpeg_turbo"),
        "simplejpeg": simplejpeg.__version__,
    }
