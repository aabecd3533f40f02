"""The options of `shards index`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from tyro.conf import Positional

from command_line.help_page import HelpPage
from shards.building.decoding_options import DecodingOptions, check_decoding, decoding_of, decoding_settings, read_size
from shards.building.holdout import HoldOut
from shards.building.options import check_holdout, check_workers
from shards.dataset.index import ORIGINAL
from shards.indexing.patterns import Tars
from shards.indexing.tar_index import TarIndexer
from shards.indexing.tar_samples import parse_labels


@dataclass(frozen=True)
class IndexTars(DecodingOptions):
    """Make a dataset of WebDataset tars where they lie; exit code 0: done, 2: refused, 75: interrupted."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "/data/tars --out my-shards --size 256": "tars of a folder",
            "s3://b/x-{0000..0099}.tar --out my-shards --labels json:style": "with classes",
        },
        everyday={
            "what": ("--out", "--size", "--labels", "--member", "--channels", "--fit", "--crop"),
            "how": ("--holdout", "--deduplicate", "--workers", "--resume"),
        },
    )

    tars: Positional[tuple[str, ...]]
    """Paths and URLs of tars, or of folders with them; with braces and wildcards, such as s3://b/x-{0000..0099}.tar."""
    out: Path
    """The folder for index, table and card: new or empty, or the one that the tars are in."""
    size: str = "64"
    """Height x width of the pictures in training, such as 256x384; one number is a square."""
    labels: str = "none"
    """"none", the text of members "cls" or "txt", or a field of json members, such as "json:style"."""
    member: str | None = None
    """Take the pictures with this extension alone, such as "target.jpg"; it begins at the first dot of a name."""
    holdout: float = 0.02
    """The share of pictures to hold out, drawn for each by its pixels and --seed."""
    deduplicate: Literal["none", "exact"] = "none"
    """Leave out pictures with the pixels of an earlier one ("exact")."""
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes; they do not change a byte of the result."""
    resume: bool = False
    """Go on with an indexing that was interrupted."""
    seed: int = 0
    """Names the choice of the pictures that are held out."""


def check_options(args: IndexTars) -> None:
    """Check all values.

    Raises:
        DataError: naming the first one that is impossible.
    """
    check_decoding(args)
    read_size(args.size)
    check_workers(args.workers)
    check_holdout(args.holdout, args.seed)
    parse_labels(args.labels)


def settings_of(args: IndexTars) -> dict[str, Any]:
    """Return all that determines the samples and their pixels, for the index."""
    return decoding_settings(args, read_size(args.size)) | {
        "encode": ORIGINAL,
        "holdout": args.holdout,
        "holdout_by": "pixels",
        "seed": args.seed,
        "labels": args.labels,
        "member": args.member,
        "deduplicate": args.deduplicate,
    }


def indexer_of(args: IndexTars, tars: Tars, work: Path) -> TarIndexer:
    """Return what indexes one tar."""
    return TarIndexer(
        root=tars.root,
        decoding=decoding_of(args, read_size(args.size)),
        max_bytes=args.max_bytes,
        holdout=HoldOut(args.holdout, args.seed),
        labels=parse_labels(args.labels),
        member=args.member,
        work=work,
    )
