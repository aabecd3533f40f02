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
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shards.building.add_options import adopt_settings
from shards.building.build_db import RESULTS, BuildDb
from shards.building.build_dbs import BuildDbs
from shards.building.finalize import used_plugins
from shards.building.interruption import BuildStopped, Interruption, run_interruptible
from shards.building.layout import Folders
from shards.building.make_shards import make_shards
from shards.building.options import Build, check_options, one_size_each, settings_of, shard_samples_of
from shards.building.phases import LISTING, finish_build, list_source, output_of, start_anew_after_mistakes
from shards.building.remote_out import is_finished_at, local_folder
from shards.building.shard import ShardOptions
from shards.building.share_results import merge_shares
from shards.building.target import early_shards, open_target
from shards.dataset.files import EXCLUDED, INDEX
from shards.dataset.index import DataError, Index
from shards.sources.listing import compare_settings
from shards.sources.source import open_source
from shards.storage.place import Url

WORK = ".build"  # the folder inside --out that holds everything of an unfinished build


def run_build(args: Build, given: Collection[str] = ()) -> int:
    """Run the command: print a summary, or the one message that says why there is none, and return the exit code.

    Args:
        args: the options.
        given: with `add`, names of the options that the user gave: the others are those of the dataset.
    """
    return run_interruptible(
        "shards build", partial(build_dataset, args, given), "finished shards are kept, and --resume goes on"
    )


@dataclass(frozen=True)
class OneSize:
    """A build of a single size."""

    args: Build
    settings: dict[str, Any]
    folder: Path
    """That it works in: --out, or one in --work."""

    @property
    def work(self) -> Path:
        """The folder inside it that holds what is unfinished."""
        return self.folder / WORK

    @property
    def is_finished(self) -> bool:
        """Whether the dataset is there already."""
        return is_finished(self.args, self.folder, self.settings)


def build_dataset(args: Build, given: Collection[str], interruption: Interruption) -> None:
    """Build the shards.

    Args:
        args: the options.
        given: see `run_build`.
        interruption: ends the build.

    Raises:
        DataError: the arguments, the source or the folder do not allow it.
        BuildStopped: the build ended early and can be resumed.
    """
    if args.add is not None:
        args = adopt_settings(args, given)
    if sizes := unfinished_sizes(args):
        with open_work_folders([size.folder for size in sizes], LISTING):
            build_in_work_folders(sizes, interruption)
            for size in sizes:
                shutil.rmtree(size.folder if isinstance(size.args.out, Url) else size.work)


def sizes_of(args: Build) -> list[OneSize]:
    """Return the builds of single sizes that a build consists of."""
    return [OneSize(one, settings_of(one), local_folder(one)) for one in one_size_each(args)]


def unfinished_sizes(args: Build) -> list[OneSize]:
    """Check the arguments, say which sizes are complete already, and return the others.

    Raises:
        DataError: the arguments, the source or a folder do not allow it.
    """
    check_options(args)
    sizes = sizes_of(args)
    for source in args.sources:
        if isinstance(source, Path):
            open_source(source, args.follow_links)  # before a folder is made for it
    todo = []
    for size in sizes:
        if size.is_finished:
            print(f"{size.args.out} is complete")
        else:
            todo.append(size)
    return todo


@contextmanager
def open_work_folders(folders: Sequence[Path], database: str) -> Iterator[None]:
    """Make and lock the folders of what is unfinished, and remove those in which there is nothing to resume.

    Args:
        folders: that they are in.
        database: the name of the file in them that is there once there is something to resume.

    Raises:
        DataError: another build is at work in one.
        BuildStopped: the disk, or a database on it, does not do its work.
    """
    names = " and ".join(map(str, folders))
    works = [folder / WORK for folder in folders]
    try:
        with ExitStack() as locks:
            for work in works:
                work.mkdir(parents=True, exist_ok=True)
                locks.enter_context(lock_folder(work))
            try:
                yield
            except DataError:
                for work in works:
                    if not (work / database).exists():
                        shutil.rmtree(work)  # it failed before there was anything to resume
                raise
    except OSError as error:
        raise BuildStopped(f"cannot write to {names}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise BuildStopped(f"cannot keep what is done in {names}: {error}") from error


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


def build_in_work_folders(sizes: Sequence[OneSize], interruption: Interruption) -> None:
    """List the source, make the missing shards of all sizes together, finalize each folder, and print summaries."""
    started, args = time.monotonic(), sizes[0].args
    works, settings = [size.work for size in sizes], [size.settings for size in sizes]
    source, on_tick = list_source(args, works, settings, interruption), interruption.check_before(lambda _: None)
    with ExitStack() as stack:
        databases = [stack.enter_context(closing(BuildDb(work / LISTING))) for work in works]
        for database, work in zip(databases, works, strict=True):
            merge_shares(database.database, work, RESULTS)
        stack.enter_context(start_anew_after_mistakes(works))
        targets = [stack.enter_context(open_target(size.args.out, size.folder, on_tick)) for size in sizes]
        known = zip(targets, databases, works, strict=True)
        on_results = [early_shards(target, database, work, args.deduplicate) for target, database, work in known]
        options = ShardOptions(source, args.max_bytes, tuple(output_of(size.args, size.work) for size in sizes))
        shard_samples = shard_samples_of(args, databases[0].pictures)
        done = make_shards(BuildDbs(databases), options, args.workers, shard_samples, on_results, interruption)
        for size, database, target in zip(sizes, databases, targets, strict=True):
            folders = Folders(size.folder, size.work)
            print("\n".join(finish_build(database, size.args, size.settings, folders, target, on_tick)))
    seconds = time.monotonic() - started
    print(f"looked at {done:,} pictures in {seconds:,.1f} s, {done / seconds:,.0f} pictures/s")
