"""The options of `shards build`: the command line, its checks, and the settings that determine the result."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import simplejpeg
from PIL import ImageColor, __version__, features
from tyro.conf import Positional

from shards.building.label_options import LabelOptions, label_settings, labels_of
from shards.building.part import Deduplicate
from shards.dataset.index import DataError
from shards.images.decode import Decoding
from shards.images.fit import Crop, Fit
from shards.images.plugins import installed_plugins
from shards.images.size import Size, parse_size

MAX_WORKERS = 1024
MAX_SHARD_SAMPLES, MIN_SHARD_SAMPLES, MIN_SHARDS = 1000, 32, 32


@dataclass(frozen=True)
class Build(LabelOptions):
    """Make shards of pictures; exit code 0: done, 2: refused, 75: interrupted, go on with --resume."""

    source: Positional[Path]
    """A folder (with all folders below it), a zip or a tar."""
    out: Path
    """The folder to make: new or empty, unless --resume."""
    size: str = "64"
    """Height x width of the stored pictures, such as 256x384; one number is a square."""
    channels: Literal[1, 3, 4] = 3
    """1: grey, 3: RGB, 4: RGBA, of which transparency is kept."""
    encode: Literal["raw", "png", "jpg", "webp"] = "raw"
    """How pictures are stored; docs/data.md tells what each costs in bytes, fidelity and speed."""
    holdout: float = 0.02
    """The share of pictures to hold out, drawn for each by its pixels and --seed."""
    deduplicate: Deduplicate = "none"
    """Leave out pictures with the pixels of another one ("exact"), or also those that are nearly equal to another one
    ("near"); the first by name stays."""
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes; they do not change a byte of the result."""
    resume: bool = False
    """Go on with a build that was interrupted."""
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
    shard_samples: int | None = None
    """Source pictures per shard; by default 1000, or fewer so that there are some 32 shards of at least 32."""
    seed: int = 0
    """Names the choice of the pictures that are held out."""
    follow_links: bool = False
    """Take files outside of the source that links in it lead to, as in the Hugging Face hub's cache."""


def check_options(args: Build) -> None:
    """Check all values.

    Raises:
        DataError: naming the first one that is impossible.
    """
    size_of(args)
    if args.channels == 4 and args.encode == "jpg":
        raise DataError("--encode jpg has no transparency: with --channels 4 use raw, png or webp")
    if args.crop != "centre" and args.fit != "crop":
        raise DataError(f"--crop {args.crop} is of --fit crop, and --fit is {args.fit}: leave one of them out")
    if args.max_aspect is not None and not 1 <= args.max_aspect < math.inf:
        raise DataError(f"--max-aspect is a longer side over a shorter one, from 1, but got {args.max_aspect}")
    least = {"workers": 1, "scaled_decode": 0, "max_pixels": 1, "max_bytes": 1, "min_size": 1}
    for name, low in least.items():
        if getattr(args, name) < low:
            raise DataError(f"--{name.replace('_', '-')} must be at least {low}, but got {getattr(args, name)}")
    if args.workers > MAX_WORKERS:
        raise DataError(f"--workers must be at most {MAX_WORKERS}, but got {args.workers}")
    if args.shard_samples is not None and args.shard_samples < 1:
        raise DataError(f"--shard-samples must be at least 1, but got {args.shard_samples}")
    if not 0 <= args.holdout < 1:
        raise DataError(f"--holdout is a share of the pictures, from 0 to below 1, but got {args.holdout}")
    if not -(2**127) <= args.seed < 2**127:
        raise DataError("--seed must fit into 128 bits")
    if args.source.is_dir() and args.out.resolve().is_relative_to(args.source.resolve()):
        raise DataError(f"--out {args.out} lies inside the source {args.source}: build outside of it")
    background_of(args)
    labels_of(args, args.source, args.max_bytes)


def size_of(args: Build) -> Size:
    """Return the height and width of the stored pictures.

    Raises:
        DataError: it is no size.
    """
    try:
        return parse_size(args.size)
    except ValueError as error:
        raise DataError(f"--size: {error}") from None


def background_of(args: Build) -> tuple[int, int, int]:
    """Return the background as RGB, 0 to 255.

    Raises:
        DataError: it is no colour.
    """
    try:
        red, green, blue, *_ = ImageColor.getrgb(args.background)
    except ValueError:
        raise DataError(f"--background must be a colour such as '#ffffff', but got {args.background!r}") from None
    return red, green, blue


def decoding_of(args: Build) -> Decoding:
    """Return how pictures are decoded."""
    return Decoding(
        size=size_of(args),
        fit=args.fit,
        background=background_of(args),
        scaled_decode=args.scaled_decode,
        max_pixels=args.max_pixels,
        min_size=args.min_size,
        channels=args.channels,
        crop=args.crop,
        max_aspect=args.max_aspect,
    )


def settings_of(args: Build) -> dict[str, Any]:
    """Return all that determines the bytes of the shards, for the index; paths and the number of workers do not."""
    height, width = size_of(args)
    # Absent by default, so that indexes of before these options stay the same.
    taken: dict[str, Any] = {"follow_links": True} if args.follow_links else {}
    if plugins := installed_plugins():
        taken["plugins"] = plugins  # the index keeps those whose formats are in the shards
    if args.deduplicate != "none":
        taken["deduplicate"] = args.deduplicate
    return taken | {
        "height": height,
        "width": width,
        "channels": args.channels,
        "encode": args.encode,
        "fit": args.fit,
        "crop": args.crop,
        "background": "#{:02x}{:02x}{:02x}".format(*background_of(args)),
        "filter": "lanczos",
        "scaled_decode": args.scaled_decode,
        "max_pixels": args.max_pixels,
        "max_bytes": args.max_bytes,
        "min_size": args.min_size,
        "max_aspect": args.max_aspect,
        "holdout": args.holdout,
        "holdout_by": "pixels",  # earlier versions drew it by name, and did not say so
        "seed": args.seed,
        "shard_samples": args.shard_samples,
        **label_settings(args),
        "pillow": __version__,
        "libjpeg_turbo": features.version_feature("libjpeg_turbo"),
        "simplejpeg": simplejpeg.__version__,
    }


def shard_samples_of(args: Build, pictures: int) -> int:
    """Return the source pictures per shard: small sets get smaller shards, so that there is work for many workers."""
    return args.shard_samples or min(MAX_SHARD_SAMPLES, max(MIN_SHARD_SAMPLES, -(-pictures // MIN_SHARDS)))
