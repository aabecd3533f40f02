"""The options of `shards build`: the command line, its checks, and the settings that determine the result."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from tyro.conf import Positional

from command_line.help_page import HelpPage
from shards.building.decoding_options import DecodingOptions, check_decoding, decoding_settings, read_size
from shards.building.label_options import LabelOptions, label_settings, labels_of
from shards.building.part import Deduplicate
from shards.dataset.index import DataError, read_index
from shards.images.size import format_size
from shards.sources.source_names import name_sources
from shards.storage.argument import OptionalPlace, PlaceArgument
from shards.storage.place import Place, Url

MAX_WORKERS = 1024
MAX_SHARD_SAMPLES, MIN_SHARD_SAMPLES, MIN_SHARDS = 1000, 32, 32


@dataclass(frozen=True)
class Build(LabelOptions, DecodingOptions):
    """Make shards of pictures; exit code 0: done, 2: refused, 75: interrupted, go on with --resume."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "MY_PICTURES --out my-shards --size 64": "of a folder, a zip or a tar",
            "paintings.zip --out my-shards --labels folders": "with classes by folder",
            "more.zip --add my-shards --out both": "more pictures",
        },
        everyday={
            "what": ("--out", "--size", "--channels", "--fit"),
            "labels": ("--labels",),
            "how": ("--encode", "--workers", "--resume", "--add"),
        },
    )

    sources: Positional[tuple[PlaceArgument, ...]]
    """A folder (with all folders below it), a zip, a tar, a Parquet file or a folder of these; or a URL. Of several
    sources, the names of pictures begin with that of their source."""
    out: PlaceArgument
    """The folder or URL to make: new or empty, unless --resume."""
    size: tuple[str, ...] = ("64",)
    """Height x width of the stored pictures, such as 256x384; one number is a square. Several sizes make a dataset
    each, in OUT/64, OUT/128 and so on, in one pass over the pictures."""
    encode: Literal["raw", "png", "jpg", "webp"] = "raw"
    """How pictures are stored; docs/data.md tells what each costs in bytes, fidelity and speed."""
    holdout: float = 0.02
    """The share of pictures to hold out, drawn for each by its pixels and --seed."""
    deduplicate: Deduplicate = "none"
    """Leave out pictures with the pixels of another one ("exact"), or also those that are nearly equal to another one
    ("near"); the first by name stays."""
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes; they do not change a byte of the result."""
    add: OptionalPlace = None
    """Add to a finished dataset, a folder or a URL: --out begins with its shards, as they are, and has its settings."""
    work: Path | None = None
    """With --out URL, a local folder for what is unfinished, which --resume needs; default: ~/.cache/lienzo/builds."""
    resume: bool = False
    """Go on with a build that was interrupted."""
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
    check_decoding(args)
    check_sizes(args.size)
    if args.channels == 4 and args.encode == "jpg":
        raise DataError("--encode jpg has no transparency: with --channels 4 use raw, png or webp")
    check_workers(args.workers)
    if args.shard_samples is not None and args.shard_samples < 1:
        raise DataError(f"--shard-samples must be at least 1, but got {args.shard_samples}")
    check_holdout(args.holdout, args.seed)
    if not args.sources:
        raise DataError("there is no source: name a folder of pictures, an archive or a URL")
    for source in args.sources:
        if is_inside(args.out, source):
            raise DataError(f"--out {args.out} lies inside the source {source}: build outside of it")
    if args.add is not None and is_inside(args.out, args.add):
        raise DataError(
            f"--out {args.out} lies inside the dataset of --add {args.add}, which stays as it is: build outside of it"
        )
    sources = named_sources(args.sources)
    if all(isinstance(source, Path) for source in args.sources):
        labels_of(args, sources, args.max_bytes)


def named_sources(sources: Sequence[Place]) -> dict[str, Place]:
    """Return the sources by what the names of their pictures begin with: nothing, where there is one source.

    Raises:
        DataError: a source is named twice.
    """
    return {"": sources[0]} if len(sources) == 1 else dict(sorted(zip(name_sources(sources), sources, strict=True)))


def check_sizes(texts: tuple[str, ...]) -> None:
    """Check that there are sizes, and no size is named twice.

    Raises:
        DataError: naming what is wrong.
    """
    if not texts:
        raise DataError("--size names no size: give at least one, such as 64")
    sizes = [read_size(text) for text in texts]
    if twice := next((size for number, size in enumerate(sizes) if size in sizes[:number]), None):
        raise DataError(f"--size names {format_size(twice)} twice: name it once")


def one_size_each(args: Build) -> list[Build]:
    """Return a build for each size: that of a single one makes OUT itself, several make folders in it."""
    if len(args.size) == 1:
        return [args]
    names = [format_size(read_size(size)) for size in args.size]
    return [replace(args, size=(name,), out=args.out / name) for name in names]


def is_inside(out: Place, source: Place) -> bool:
    """Return whether a place lies in a folder of pictures."""
    if isinstance(out, Url) and isinstance(source, Url):
        return out.root == source.root and f"{out.key}/".startswith(f"{source.key}/".lstrip("/"))
    if isinstance(out, Url) or isinstance(source, Url):
        return False
    return source.is_dir() and out.resolve().is_relative_to(source.resolve())


def check_workers(workers: int) -> None:
    """Check the number of processes.

    Raises:
        DataError: it is impossible.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise DataError(f"--workers must be from 1 to {MAX_WORKERS}, but got {workers}")


def check_holdout(share: float, seed: int) -> None:
    """Check how pictures are held out.

    Raises:
        DataError: it is impossible.
    """
    if not 0 <= share < 1:
        raise DataError(f"--holdout is a share of the pictures, from 0 to below 1, but got {share}")
    if not -(2**127) <= seed < 2**127:
        raise DataError("--seed must fit into 128 bits")


def settings_of(args: Build) -> dict[str, Any]:
    """Return all that determines the bytes of the shards, for the index; paths and the number of workers do not.

    Args:
        args: of a single size.
    """
    # Absent by default, so that indexes of before these options stay the same.
    taken: dict[str, Any] = {"follow_links": True} if args.follow_links else {}
    if args.add is not None:
        taken["add"] = hashlib.sha256(read_index(args.add)).hexdigest()
    if args.deduplicate != "none":
        taken["deduplicate"] = args.deduplicate
    if len(args.sources) > 1:
        taken["sources"] = list(named_sources(args.sources))
    return (
        taken
        | decoding_settings(args, read_size(args.size[0]))
        | {
            "encode": args.encode,
            "holdout": args.holdout,
            "holdout_by": "pixels",  # earlier versions drew it by name, and did not say so
            "seed": args.seed,
            "shard_samples": args.shard_samples,
            **label_settings(args),
        }
    )


def shard_samples_of(args: Build, pictures: int) -> int:
    """Return the source pictures per shard: small sets get smaller shards, so that there is work for many workers."""
    return args.shard_samples or min(MAX_SHARD_SAMPLES, max(MIN_SHARD_SAMPLES, -(-pictures // MIN_SHARDS)))
