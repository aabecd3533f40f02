"""`python -m shards build`: from a folder, zip or tar of pictures to shards that are the same bytes every time."""

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
from pathlib import Path
from typing import Any

from shards.atomic_files import flush
from shards.building.build_db import BuildDb
from shards.building.duplicates import count_duplicates
from shards.building.finalize import check_pictures, finish
from shards.building.interruption import Interruption, Stopped, interruptible
from shards.building.making import make_shards
from shards.building.options import Build, check, decoding_of, labels_of, settings_of, shard_samples_of
from shards.building.progress import ListingProgress
from shards.building.shard import ShardOptions
from shards.building.summary import summarize
from shards.building.workers import INTERRUPTED
from shards.dataset.index import EXCLUDED, INDEX, DataError, Index
from shards.sources.listing import compare_listings, compare_settings, write_listing
from shards.sources.source import Source, open_source
from shards.sources.source_entry import to_show, to_text

WORK = ".build"  # the folder inside DIR that an unfinished build keeps everything in


def run_build(args: Build) -> int:
    """Build, print a summary or the one message that says why not, and return the exit code."""
    try:
        with interruptible() as interruption:
            build(args, interruption)
        return 0
    except DataError as error:
        print(f"shards build: {error}", file=sys.stderr)
        return 2
    except (Stopped, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        print(f"shards build: {why}; finished shards are kept, and --resume goes on", file=sys.stderr)
        return INTERRUPTED


def build(args: Build, interruption: Interruption) -> None:
    """Build the shards.

    Raises:
        DataError: the arguments, the source or the folder do not allow it.
        Stopped: it can be resumed.
    """
    check(args)
    source, settings = open_source(args.source, args.follow_links), settings_of(args)
    if is_finished(args, settings):
        print(f"{args.out} is complete")
        return
    work = args.out / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        with locked(work):
            try:
                build_in(work, args, source, settings, interruption)
            except DataError:
                if not (work / "listing").exists():
                    shutil.rmtree(work)  # nothing is there to resume
                raise
            shutil.rmtree(work)
    except OSError as error:
        raise Stopped(f"cannot write to {args.out}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise Stopped(f"cannot keep the list of files in {work}: {error}") from error


def is_finished(args: Build, settings: dict[str, Any]) -> bool:
    """Return whether there is nothing to do, because it was done.

    Raises:
        DataError: the folder is not one to build in.
    """
    if args.out.exists() and not args.out.is_dir():
        raise DataError(f"--out {args.out} is a file: name a folder")
    names = set(os.listdir(args.out)) if args.out.is_dir() else set()
    if INDEX in names and args.resume:
        known = Index.open(args.out).content["settings"]
        compare_settings(known, settings | ({} if args.shard_samples else {"shard_samples": known["shard_samples"]}))
        if WORK in names:
            shutil.rmtree(args.out / WORK)
        return True
    if WORK in names and not args.resume:
        raise DataError(f"{args.out} holds an unfinished build: go on with --resume, or build into another folder")
    if names - {EXCLUDED} and WORK not in names:  # a build that found no picture leaves the list of why
        raise DataError(f"{args.out} is not empty: build into a new folder")
    return False


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Keep other builds out of the folder.

    Raises:
        DataError: one is in it.
    """
    with (work / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another build is at work in {work.parent}: wait for it, or end it") from None
        except OSError as error:  # ENOLCK, ENOSYS, EOPNOTSUPP: network file systems that are mounted without locks
            (work / "lock").unlink()
            with suppress(OSError):  # it holds a build that began with locks
                work.rmdir()
            raise DataError(
                f"{work.parent} is on a file system without locks (flock: {error.strerror}), which keep two builds out "
                "of one folder: build on another one, such as a local disk, and move the finished folder there"
            ) from None
        yield


def build_in(work: Path, args: Build, source: Source, settings: dict[str, Any], interruption: Interruption) -> None:
    """List the source, make the shards that are not there yet, finish the folder, and print a summary."""
    started = time.monotonic()
    listing, new = work / "listing", work / "listing.new"
    wrapping = write_listing(new, source, labels_of(args), settings, interruption.between(ListingProgress()))
    for note in [*source.notes, *([] if wrapping is None else [wrapping_note(args.source, to_text(wrapping))])]:
        print(f"note: {note}", file=sys.stderr, flush=True)
    if listing.exists():
        compare_listings(listing, new)
    else:
        flush(new)
        new.replace(listing)
        flush(work)
    ledger = BuildDb(listing)
    try:
        shard_samples = shard_samples_of(args, sum(ledger.pictures.values()))
        recipe = ShardOptions(source, decoding_of(args), args.encode, args.max_bytes, work)
        done = make_shards(ledger, recipe, args.workers, shard_samples, interruption)
        check_pictures(ledger, args.out, work, settings)
        duplicates = count_duplicates(ledger, sum(ledger.pictures.values()))
        content = finish(ledger, args.out, work, settings | {"shard_samples": shard_samples}, duplicates)
        exclusions = ledger.exclusions()
    except DataError:
        listing.unlink()
        raise
    finally:
        ledger.close()
    seconds = time.monotonic() - started
    for line in summarize(content, args.out, exclusions, duplicates):
        print(line)
    print(f"looked at {done:,} pictures in {seconds:,.1f} s, {done / seconds:,.0f} pictures/s")


def wrapping_note(source: Path, folder: str) -> str:
    """Tell that a folder is around what may be the classes."""
    what = f"there is one class, as everything lies in {to_show(folder)}; for the folders in it as classes, "
    return what + (
        f"build from {shlex.quote(str(source / folder))}" if source.is_dir() else "unpack the archive and build from it"
    )
