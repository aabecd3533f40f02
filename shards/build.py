"""`python -m shards build`: from a folder, zip or tar of pictures to shards that are the same bytes every time."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards.durable import flush
from shards.exclusion import NOTES, REASONS
from shards.finish import finish
from shards.index import INDEX, DataError, Index
from shards.interruption import Interruption, Stopped, interruptible
from shards.ledger import Ledger
from shards.listing import SPLITS, compare_listings, compare_settings, write_listing
from shards.making import make_shards
from shards.options import Build, check, decoding_of, labels_of, settings_of, shard_samples_of
from shards.progress import ListingProgress
from shards.shard import Recipe
from shards.source import Source, open_source
from shards.workers import INTERRUPTED

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
    source, settings = open_source(args.source), settings_of(args)
    if is_finished(args, settings):
        print(f"{args.out} is complete")
        return
    work = args.out / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        with locked(work):
            build_in(work, args, source, settings, interruption)
    except OSError as error:
        raise Stopped(f"cannot write to {args.out}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise Stopped(f"cannot keep the list of files in {work}: {error}") from error
    except DataError:
        if not (work / "listing").exists():
            shutil.rmtree(work)  # nothing is there to resume
        raise
    shutil.rmtree(work)


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
    if names and WORK not in names:
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
        yield


def build_in(work: Path, args: Build, source: Source, settings: dict[str, Any], interruption: Interruption) -> None:
    """List the source, make the shards that are not there yet, finish the folder, and print a summary."""
    started = time.monotonic()
    listing, new = work / "listing", work / "listing.new"
    write_listing(new, source, labels_of(args), settings, interruption.between(ListingProgress()))
    if listing.exists():
        compare_listings(listing, new)
    else:
        flush(new)
        new.replace(listing)
        flush(work)
    ledger = Ledger(listing)
    try:
        shard_samples = shard_samples_of(args, sum(ledger.pictures.values()))
        recipe = Recipe(source, decoding_of(args), args.encode, args.max_bytes, work)
        done = make_shards(ledger, recipe, args.workers, shard_samples, interruption)
        content = finish(ledger, args.out, work, settings | {"shard_samples": shard_samples})
    except DataError:
        listing.unlink()
        raise
    finally:
        ledger.close()
    summarize(content, args.out, done, time.monotonic() - started)


def summarize(content: dict[str, Any], out: Path, done: int, seconds: float) -> None:
    """Print what was built."""
    train, holdout = (content["splits"][split] for split in SPLITS)
    sizes, samples = train["shards"]["bytes"] + holdout["shards"]["bytes"], train["samples"] + holdout["samples"]
    print(f"{out}: {train['samples']:,} pictures to train on and {holdout['samples']:,} held out", end=" ")
    print(f"in {len(sizes):,} shards, {sum(sizes) / 1e6:,.1f} MB")
    print(f"looked at {done:,} pictures in {seconds:,.1f} s, {done / seconds:,.0f} pictures/s")
    if enlarged := content["statistics"]["enlarged"]:
        print(f"enlarged, as a side is shorter than {content['settings']['size']}: {enlarged:,}")
    for note, count in content["statistics"].get("noted", {}).items():
        print(f"noted of {count:,}: {NOTES[note]}")
    if content["classes"]:
        unlabelled = samples - sum(content["class_counts"])
        print(f"classes: {len(content['classes']):,}; pictures of none: {unlabelled:,}")
    if content["labels"]:
        print(
            "labels: " + ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in content["labels"].items())
        )
    if content["excluded"]:
        print(f"excluded: {sum(content['excluded'].values()):,}, listed in {out / 'excluded.jsonl'}")
        for reason, count in content["excluded"].items():
            print(f"  {count:8,}  {reason}: {REASONS[reason]}")
