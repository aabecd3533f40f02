"""The phases of a build: `list_source`, then `make_shards` (make_shards.py), then `finish_build`.

Each can be killed and repeated. What they have done is in the work folder.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards.atomic_files import fsync
from shards.building.build_db import BuildDb
from shards.building.decoding_options import decoding_of
from shards.building.duplicates import deduplicate_samples
from shards.building.finalize import check_pictures, finalize_dataset
from shards.building.holdout import HoldOut
from shards.building.interruption import Interruption
from shards.building.label_options import labels_of
from shards.building.layout import Folders
from shards.building.options import Build, shard_samples_of
from shards.building.progress import ListingProgress
from shards.building.shard import ShardOptions
from shards.building.summary import example_copies, summary_lines
from shards.building.target import Target
from shards.errors import DataError
from shards.sources.label_table import LabelTable
from shards.sources.listing import compare_listings, write_listing
from shards.sources.remote_archive import fetch_source
from shards.sources.source import Source, open_source
from shards.sources.source_entry import decode_name, quote_name
from shards.storage.place import Place, Url

LISTING = "listing"  # the database, in the work folder


def list_source(work: Path, args: Build, settings: dict[str, Any], interruption: Interruption) -> Source:
    """Write the database of a build, or compare the source with that of an earlier attempt; return the source.

    Raises:
        DataError: the source or its labels are damaged, or not those of the earlier attempt.
        BuildStopped: interrupted.
    """
    listing, new = work / LISTING, work / f"{LISTING}.new"
    place, source = open_build_source(work, args, interruption)
    labels = labels_of(args, place, args.max_bytes)
    wrapping = write_listing(new, source, labels, settings, interruption.check_before(ListingProgress()))
    for note in [
        *source.notes,
        *(labels.notes if isinstance(labels, LabelTable) else []),
        *([] if wrapping is None else [describe_wrapping_folder(place, decode_name(wrapping))]),
    ]:
        print(f"note: {note}", file=sys.stderr, flush=True)
    if listing.exists():  # a resumed build: its shards are valid only for the same files and settings
        compare_listings(listing, new)
    else:
        # On the disk before any shard is: it says what they are valid for.
        fsync(new)
        new.replace(listing)
        fsync(work)
    return source


def open_build_source(work: Path, args: Build, interruption: Interruption) -> tuple[Place, Source]:
    """Return where the source is read, and the source; a remote archive is copied into the work folder once.

    Raises:
        DataError: there is no such source.
        BuildStopped: interrupted.
    """
    place = fetch_source(args.source, work, interruption.check_before(lambda _: None))
    return place, open_source(place, args.follow_links)


def describe_wrapping_folder(source: Place, folder: str) -> str:
    """Return a note that all pictures lie in one folder, and that the folders inside it may be the classes meant."""
    what = f"there is one class, as everything lies in {quote_name(folder)}; for the folders in it as classes, "
    if isinstance(source, Url) or source.is_dir():
        return what + f"build from {shlex.quote(str(source / folder))}"
    return what + "unpack the archive and build from it"


def shard_options(args: Build, source: Source, work: Path) -> ShardOptions:
    """Return what is the same for all tasks."""
    holdout = HoldOut(args.holdout, args.seed)
    return ShardOptions(source, decoding_of(args), args.encode, args.max_bytes, holdout, args.deduplicate, work)


@contextmanager
def start_anew_after_mistakes(work: Path) -> Iterator[None]:
    """Remove the database when a mistake of the user ends the `with` block: a corrected command then starts anew."""
    try:
        yield
    except DataError:
        (work / LISTING).unlink()
        raise


def finish_build(
    build_db: BuildDb,
    args: Build,
    settings: dict[str, Any],
    folders: Folders,
    target: Target,
    on_tick: Callable[[int], None],
) -> list[str]:
    """Complete the dataset of which all shards are made, and return the lines of the summary.

    Raises:
        DataError: there is no picture to train on, or none has a label that was asked for.
        BuildStopped: an upload failed.
        OSError: a file cannot be written.
    """
    target.complete({})
    copies = deduplicate_samples(build_db, args.deduplicate, folders.work)
    check_pictures(build_db, folders, settings, copies.left_out)
    known = settings | {"shard_samples": shard_samples_of(args, build_db.pictures)}
    content = finalize_dataset(build_db, folders, target, known, copies, on_tick)
    examples = example_copies(build_db, copies.kept)
    return [*summary_lines(content, args.out, build_db.count_exclusions(), examples)]
