"""The phases of a build: `list_source`, then `make_shards` (make_shards.py), then `finish_build`.

Each can be killed and repeated. What they have done is in the work folder.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from shards.atomic_files import fsync
from shards.building.build_db import BuildDb
from shards.building.decoding_options import decoding_of, read_size
from shards.building.duplicates import deduplicate_samples
from shards.building.finalize import check_pictures, finalize_dataset
from shards.building.holdout import HoldOut
from shards.building.interruption import Interruption
from shards.building.label_options import labels_of
from shards.building.layout import Folders
from shards.building.old_dataset import OldDataset, open_old
from shards.building.options import Build, named_sources, shard_samples_of
from shards.building.progress import ListingProgress
from shards.building.shard import Output
from shards.building.summary import example_copies, summary_lines
from shards.building.target import Target
from shards.errors import DataError
from shards.sources.label_table import LabelTable
from shards.sources.listing import NOTHING_KEPT, compare_listings, copy_listing, write_listing
from shards.sources.remote_archive import fetch_source
from shards.sources.several import open_sources
from shards.sources.source import Source
from shards.sources.source_entry import decode_name, quote_name
from shards.storage.place import Place, Url

LISTING = "listing"  # the database, in the work folder


def list_source(
    args: Build, works: Sequence[Path], settings: Sequence[dict[str, Any]], interruption: Interruption
) -> Source:
    """Write the databases of a build, or compare the source with those of an earlier attempt; return the source.

    Args:
        args: of the build.
        works: the work folder of each size.
        settings: of each size.
        interruption: ends it.

    Raises:
        DataError: the source or its labels are damaged, or not those of the earlier attempt.
        BuildStopped: interrupted.
    """
    first = works[0]
    places, source = open_build_source(args, first, interruption)
    labels = labels_of(args, places, args.max_bytes)
    new, old = first / f"{LISTING}.new", open_old(args.add, first) if args.add else None
    kept = old.kept() if old else NOTHING_KEPT
    wrapping = write_listing(new, source, labels, settings[0], interruption.check_before(ListingProgress()), kept)
    if old is not None:
        check_vectors(new, old)
    for note in [
        *source.notes,
        *(labels.notes if isinstance(labels, LabelTable) else []),
        *(describe_wrapping_folder(places, *map(decode_name, found)) for found in wrapping.items()),
    ]:
        print(f"note: {note}", file=sys.stderr, flush=True)
    # The last one is the original, which is moved away.
    for work, known in reversed([*zip(works, settings, strict=True)]):
        if work != first:
            copy_listing(new, work / new.name, known)
        keep_listing(work / new.name, work)
    return source


def open_build_source(args: Build, work: Path, interruption: Interruption) -> tuple[dict[str, Place], Source]:
    """Return where each source is read, by its name, and all as one; remote archives are copied into the work folder.

    Raises:
        DataError: there is no such source.
        BuildStopped: interrupted.
    """
    on_tick = interruption.check_before(lambda _: None)
    places = {name: fetch_source(place, work, on_tick) for name, place in named_sources(args.sources).items()}
    return places, open_sources(places, args.follow_links)


def keep_listing(new: Path, work: Path) -> None:
    """Make a listing the database of a work folder, unless that has one, which must then be equal.

    Raises:
        DataError: it is not.
    """
    listing = work / LISTING
    if listing.exists():  # a resumed build: its shards are valid only for the same files and settings
        compare_listings(listing, new)
        return
    # On the disk before any shard is: it says what they are valid for.
    fsync(new)
    new.replace(listing)
    fsync(work)


def check_vectors(listing: Path, old: OldDataset) -> None:
    """Check that the labels of the new pictures are vectors if those of the old dataset are, of the same length.

    Raises:
        DataError: they are not.
    """
    with closing(BuildDb(listing)) as build_db:
        here, there = build_db.vector_length(), old.vector_length()
    if here != there:
        kinds = [f"vectors of {length} numbers" if length else "no vectors" for length in (there, here)]
        raise DataError(
            f"the labels of --add {old.index.path} are {kinds[0]}, and those of the new pictures {kinds[1]}: give a "
            "table with labels of the same kind"
        )


def describe_wrapping_folder(sources: Mapping[str, Place], prefix: str, folder: str) -> str:
    """Return a note that all pictures lie in one folder, and that the folders inside it may be the classes meant.

    Args:
        sources: by their names.
        prefix: what the names of the pictures of the source that is meant begin with.
        folder: that they lie in.
    """
    source, of = sources[prefix.rstrip("/")], f" from {sources[prefix.rstrip('/')]}" if prefix else ""
    what = f"there is one class{of}, as everything lies in {quote_name(folder)}; for the folders in it as classes, "
    if isinstance(source, Url) or source.is_dir():
        return what + f"build from {shlex.quote(str(source / folder))}"
    return what + "unpack the archive and build from it"


def output_of(args: Build, work: Path) -> Output:
    """Return how the pictures of a build of one size are made."""
    decoding, holdout = decoding_of(args, read_size(args.size[0])), HoldOut(args.holdout, args.seed)
    return Output(decoding, args.encode, holdout, args.deduplicate, work)


@contextmanager
def start_anew_after_mistakes(works: Sequence[Path]) -> Iterator[None]:
    """Remove the databases when a mistake of the user ends the `with` block: a corrected command then starts anew."""
    try:
        yield
    except DataError:
        for work in works:
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
    old = open_old(args.add, folders.work) if args.add else None
    copies = deduplicate_samples(build_db, args.deduplicate, folders.work, old)
    check_pictures(build_db, folders, settings, copies.left_out)
    known = settings | {"shard_samples": shard_samples_of(args, build_db.pictures)}
    content = finalize_dataset(build_db, folders, target, known, copies, on_tick, old)
    examples = example_copies(build_db, copies.kept, old)
    return [*summary_lines(content, args.out, build_db.count_exclusions(), examples)]
