"""`python -m shards build`: from a folder, zip or tar of pictures to shards that are the same bytes every time.

A build lists the source into a database (sources/listing.py), makes the shards that the database lacks
(make_shards.py), and writes the table and, last of all, the index (finalize.py). Until then everything lies in
OUT/.build, so a build that was killed at any point can be resumed, and OUT is never half a dataset. If OUT is a URL,
that folder is in --work (remote_out.py), and finished files are uploaded (target.py).
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from shards.atomic_files import fsync
from shards.building.build_db import BuildDb
from shards.building.decoding_options import decoding_of
from shards.building.duplicates import deduplicate_samples
from shards.building.finalize import check_pictures, finalize_dataset, used_plugins
from shards.building.holdout import HoldOut
from shards.building.interruption import BuildStopped, Interruption, run_interruptible
from shards.building.label_options import labels_of
from shards.building.layout import Folders
from shards.building.make_shards import make_shards
from shards.building.options import Build, check_options, settings_of, shard_samples_of
from shards.building.progress import ListingProgress
from shards.building.remote_out import is_finished_at, local_folder
from shards.building.shard import ShardOptions
from shards.building.summary import example_copies, summary_lines
from shards.building.target import early_shards, open_target
from shards.dataset.files import EXCLUDED, INDEX
from shards.dataset.index import DataError, Index
from shards.sources.label_table import LabelTable
from shards.sources.listing import compare_listings, compare_settings, write_listing
from shards.sources.remote_archive import fetch_source
from shards.sources.source import open_source
from shards.sources.source_entry import decode_name, quote_name
from shards.storage.place import Place, Url

WORK = ".build"  # the folder inside --out that holds everything of an unfinished build


def run_build(args: Build) -> int:
    """Run the command: print a summary, or the one message that says why there is none, and return the exit code."""
    return run_interruptible(
        "shards build", partial(build_dataset, args), "finished shards are kept, and --resume goes on"
    )


def build_dataset(args: Build, interruption: Interruption) -> None:
    """Build the shards.

    Raises:
        DataError: the arguments, the source or the folder do not allow it.
        BuildStopped: the build ended early and can be resumed.
    """
    check_options(args)
    settings, folder = settings_of(args), local_folder(args)
    if isinstance(args.source, Path):
        open_source(args.source, args.follow_links)  # before a folder is made for it
    if is_finished(args, folder, settings):
        print(f"{args.out} is complete")
        return
    work = folder / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        with lock_folder(work):
            try:
                build_in_work_folder(work, args, settings, interruption)
            except DataError:
                if not (work / "listing").exists():
                    shutil.rmtree(work)  # it failed before there was anything to resume
                raise
            shutil.rmtree(folder if isinstance(args.out, Url) else work)
    except OSError as error:
        raise BuildStopped(f"cannot write to {folder}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise BuildStopped(f"cannot keep the list of files in {work}: {error}") from error


def is_finished(args: Build, folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether the folder already holds the finished result of this very build.

    Raises:
        DataError: the folder holds something else.
    """
    if isinstance(args.out, Url):
        return is_finished_at(args.out, folder, (folder / WORK).is_dir(), args, settings)
    if args.out.exists() and not args.out.is_dir():
        raise DataError(f"--out {args.out} is a file: name a folder")
    names = set(os.listdir(args.out)) if args.out.is_dir() else set()
    if INDEX in names and args.resume:
        known = Index.open(args.out).content["settings"]
        chosen = {} if args.shard_samples else {"shard_samples": known["shard_samples"]}
        compare_settings(known, used_plugins(settings, known.get("plugins", {})) | chosen)
        if WORK in names:
            shutil.rmtree(args.out / WORK)  # killed between writing the index and removing it
        return True
    if WORK in names and not args.resume:
        raise DataError(f"{args.out} holds an unfinished build: go on with --resume, or build into another folder")
    if names - {EXCLUDED} and WORK not in names:  # a build that found no picture leaves the list of reasons
        raise DataError(f"{args.out} is not empty: build into a new folder")
    return False


@contextmanager
def lock_folder(work: Path) -> Iterator[None]:
    """Hold the lock of the folder, so that two builds never write into it.

    Raises:
        DataError: another build holds it, or the file system has no locks.
    """
    with (work / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another build is at work in {work.parent}: wait for it, or end it") from None
        except OSError as error:  # ENOLCK, ENOSYS, EOPNOTSUPP: network file systems that are mounted without locks
            (work / "lock").unlink()
            with suppress(OSError):  # not empty: an unfinished build that began on a file system with locks
                work.rmdir()
            raise DataError(
                f"{work.parent} is on a file system without locks (flock: {error.strerror}), which keep two builds out "
                "of one folder: build on another one, such as a local disk, and move the finished folder there"
            ) from None
        yield


def build_in_work_folder(work: Path, args: Build, settings: dict[str, Any], interruption: Interruption) -> None:
    """List the source, make the missing shards, finalize the folder, and print a summary."""
    started = time.monotonic()
    listing, new = work / "listing", work / "listing.new"
    place = fetch_source(args.source, work, interruption.check_before(lambda _: None))
    source, labels = open_source(place, args.follow_links), labels_of(args, place, args.max_bytes)
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
    build_db = BuildDb(listing)
    try:
        shard_samples = shard_samples_of(args, build_db.pictures)
        holdout = HoldOut(args.holdout, args.seed)
        options = ShardOptions(source, decoding_of(args), args.encode, args.max_bytes, holdout, args.deduplicate, work)
        folders, on_tick = Folders(work.parent, work), interruption.check_before(lambda _: None)
        with open_target(args.out, folders.out, on_tick) as target:
            on_result = early_shards(target, build_db, work, args.deduplicate)
            done = make_shards(build_db, options, args.workers, shard_samples, on_result, interruption)
            target.complete({})
            copies = deduplicate_samples(build_db, args.deduplicate, work)
            check_pictures(build_db, folders, settings, copies.left_out)
            known = settings | {"shard_samples": shard_samples}
            content = finalize_dataset(build_db, folders, target, known, copies, on_tick)
        examples = example_copies(build_db, copies.kept)
        summary = [*summary_lines(content, args.out, build_db.count_exclusions(), examples)]
    except DataError:
        listing.unlink()  # so that a corrected command starts anew
        raise
    finally:
        build_db.close()
    seconds = time.monotonic() - started
    print("\n".join(summary))
    print(f"looked at {done:,} pictures in {seconds:,.1f} s, {done / seconds:,.0f} pictures/s")


def describe_wrapping_folder(source: Place, folder: str) -> str:
    """Return a note that all pictures lie in one folder, and that the folders inside it may be the classes meant."""
    what = f"there is one class, as everything lies in {quote_name(folder)}; for the folders in it as classes, "
    if isinstance(source, Url) or source.is_dir():
        return what + f"build from {shlex.quote(str(source / folder))}"
    return what + "unpack the archive and build from it"
