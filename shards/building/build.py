"""`python -m shards build`: from a folder, zip or tar of pictures to shards that are the same bytes every time.

A build goes through the phases of phases.py: it lists the source, makes the shards that the database lacks, and writes
the table and, last of all, the index. Until then everything lies in OUT/.build, so a build that was killed at any point
can be resumed, and OUT is never half a dataset. If OUT is a URL, that folder is in --work (remote_out.py), and finished
files are uploaded (target.py).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from shards.building.build_db import RESULTS, BuildDb
from shards.building.finalize import used_plugins
from shards.building.interruption import BuildStopped, Interruption, run_interruptible
from shards.building.layout import Folders
from shards.building.make_shards import make_shards
from shards.building.options import Build, check_options, settings_of, shard_samples_of
from shards.building.phases import LISTING, finish_build, list_source, shard_options, start_anew_after_mistakes
from shards.building.remote_out import is_finished_at, local_folder
from shards.building.share_results import merge_shares
from shards.building.target import early_shards, open_target
from shards.dataset.files import EXCLUDED, INDEX
from shards.dataset.index import DataError, Index
from shards.sources.listing import compare_settings
from shards.sources.source import open_source
from shards.storage.place import Url

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
    with open_work_folder(folder, LISTING) as work:
        build_in_work_folder(work, args, settings, interruption)
        shutil.rmtree(folder if isinstance(args.out, Url) else work)


@contextmanager
def open_work_folder(folder: Path, database: str) -> Iterator[Path]:
    """Make and lock the folder of what is unfinished, and remove it if there is nothing in it to resume.

    Args:
        folder: that it is in.
        database: the name of the file in it that is there once there is something to resume.

    Raises:
        DataError: another build is at work in it.
        BuildStopped: the disk, or the database on it, does not do its work.
    """
    work = folder / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        with lock_folder(work):
            try:
                yield work
            except DataError:
                if not (work / database).exists():
                    shutil.rmtree(work)  # it failed before there was anything to resume
                raise
    except OSError as error:
        raise BuildStopped(f"cannot write to {folder}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise BuildStopped(f"cannot keep what is done in {work}: {error}") from error


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
def lock_folder(work: Path, shared: bool = False) -> Iterator[None]:
    """Hold the lock of the folder, so that two builds never write into it; jobs that share a build share the lock.

    Raises:
        DataError: another build holds it, or the file system has no locks.
    """
    with (work / "lock").open("wb") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
    source = list_source(work, args, settings, interruption)
    with closing(BuildDb(work / LISTING)) as build_db:
        merge_shares(build_db.database, work, RESULTS)
        folders, on_tick = Folders(work.parent, work), interruption.check_before(lambda _: None)
        with start_anew_after_mistakes(work), open_target(args.out, folders.out, on_tick) as target:
            on_result = early_shards(target, build_db, work, args.deduplicate)
            shard_samples = shard_samples_of(args, build_db.pictures)
            options = shard_options(args, source, work)
            done = make_shards(build_db, options, args.workers, shard_samples, on_result, interruption)
            summary = finish_build(build_db, args, settings, folders, target, on_tick)
    seconds = time.monotonic() - started
    print("\n".join(summary))
    print(f"looked at {done:,} pictures in {seconds:,.1f} s, {done / seconds:,.0f} pictures/s")
