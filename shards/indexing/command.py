"""`python -m shards index`: each tar is read once, by one of several processes, and becomes a record in a database.

What is left to do is in OUT/.build, so that an indexing that was killed at any point goes on with --resume.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from shards.building.build import WORK, open_work_folders
from shards.building.interruption import BuildStopped, Interruption, run_interruptible
from shards.building.layout import Folders
from shards.building.share_results import merge_shares
from shards.building.summary import summary_lines
from shards.building.workers import WorkerCrash, Workers
from shards.dataset.files import EXCLUDED, INDEX
from shards.dataset.index import Index
from shards.errors import DataError
from shards.indexing.finish import finish
from shards.indexing.options import IndexTars, check_options, indexer_of, settings_of
from shards.indexing.patterns import Tars, find_tars
from shards.indexing.progress import TarProgress
from shards.indexing.tar_db import RESULTS, TarDb
from shards.indexing.tar_index import TarIndexer, TarResult, TarTask
from shards.sources.listing import compare_settings

DATABASE = "tars"  # in the folder of what is unfinished
MAX_TRIES = 20  # of one tar; each may find one picture that ends its process


def run_index(args: IndexTars) -> int:
    """Run the command: print a summary, or the one message that says why there is none, and return the exit code."""
    return run_interruptible("shards index", partial(index_tars, args), "what is done is kept, and --resume goes on")


def index_tars(args: IndexTars, interruption: Interruption) -> None:
    """Index the tars.

    Raises:
        DataError: the arguments, the tars or the folder do not allow it.
        BuildStopped: it ended early and can be resumed.
    """
    if unfinished := unfinished_tars(args):
        work = args.out / WORK
        with open_work_folders([args.out], DATABASE):
            index_in_work_folder(Folders(args.out, work), args, *unfinished, interruption)
            shutil.rmtree(work)


def unfinished_tars(args: IndexTars) -> tuple[Tars, dict[str, Any]] | None:
    """Check the arguments, and return the tars and the settings; None: the dataset is complete, which is said.

    Raises:
        DataError: the arguments, the tars or the folder do not allow it.
    """
    check_options(args)
    tars, settings = find_tars(args.tars), settings_of(args)
    if is_finished(args, tars, settings):
        print(f"{args.out} is complete")
        return None
    return tars, settings


def is_finished(args: IndexTars, tars: Tars, settings: dict[str, Any]) -> bool:
    """Return whether the folder already holds the finished result of this very command.

    Raises:
        DataError: the folder holds something else.
    """
    if args.out.exists() and not args.out.is_dir():
        raise DataError(f"--out {args.out} is a file: name a folder")
    names = set(os.listdir(args.out)) if args.out.is_dir() else set()
    if INDEX in names and args.resume:
        known = Index.open(args.out).content["settings"]
        compare_settings({"plugins": None, **known}, {**settings, "plugins": known.get("plugins")})
        if WORK in names:
            shutil.rmtree(args.out / WORK)  # killed between writing the index and removing it
        return True
    if INDEX in names:
        raise DataError(f"{args.out} holds a dataset already: index into another folder")
    if WORK in names and not args.resume:
        raise DataError(f"{args.out} holds an unfinished dataset: go on with --resume, or index into another folder")
    here = Path(os.path.abspath(args.out))
    own = isinstance(tars.root, Path) and tars.root.is_relative_to(here)  # the tars themselves are in it
    if names - {EXCLUDED} and WORK not in names and not own:
        raise DataError(f"{args.out} is not empty: index into a new folder, or into the one that the tars are in")
    return False


def index_in_work_folder(
    folders: Folders, args: IndexTars, tars: Tars, settings: dict[str, Any], interruption: Interruption
) -> None:
    """Index the tars that the database lacks, finish the folder, and print a summary."""
    started = time.monotonic()
    with closing(TarDb(folders.work / DATABASE, tars, settings)) as db:
        merge_shares(db.database, folders.work, RESULTS)
        tasks = db.open_tasks()
        progress = TarProgress(len(tars.names), len(tasks))
        maker = Maker(db, indexer_of(args, tars, folders.work), progress, interruption.check_before(progress.show))
        maker.run(tasks, args.workers)
        try:
            content, examples = finish(db, tars.root, folders, settings)
        except DataError:
            (folders.work / DATABASE).unlink()  # so that a corrected command starts anew
            raise
        for line in summary_lines(content, args.out, db.count_exclusions(), examples):
            print(line)
    seconds = time.monotonic() - started
    print(f"read {len(tasks):,} tars in {seconds:,.1f} s")


@dataclass
class Maker:
    """Runs the tasks, and decides what a crash means."""

    db: TarDb
    indexer: TarIndexer
    progress: TarProgress
    on_tick: Callable[[int], None]
    on_result: Callable[[], None] = lambda: None
    """Called after each tar that is recorded."""

    def run(self, tasks: list[TarTask], workers: int) -> None:
        """Run all tasks; those whose worker crashed are repeated with no other worker at work.

        Raises:
            BuildStopped: a tar cannot be read, or workers crash without a picture as the cause.
        """
        crashed: list[TarTask] = []
        with Workers(min(workers, max(1, len(tasks))), self.indexer) as pool:
            for task, result in pool.run(iter(tasks), self.on_tick):
                if isinstance(result, WorkerCrash):
                    self.progress.print_line(f"{result}: this is tried again with no other worker at work")
                    crashed.append(task)
                else:
                    self.record(task, result)
        for task in crashed:
            self.retry(task)

    def retry(self, task: TarTask) -> None:
        """Repeat a task alone; a picture that crashes its worker now is excluded.

        Raises:
            BuildStopped: workers crash, and no picture is the cause, or too many are.
        """
        for _ in range(MAX_TRIES):
            with Workers(1, self.indexer) as pool:
                ((_, result),) = pool.run(iter([task]), self.on_tick)
            if isinstance(result, TarResult):
                self.record(task, result)
                return
            if result.picture is None or not result.reason:
                break
            self.progress.print_line(f"{result}, and no other worker was at work: the picture is left out")
            self.db.record_crash(task, result.picture, result.reason, f"its process {result.how}")
            task = replace(task, deadly=self.db.task(task.number).deadly)
        raise BuildStopped(
            f"{result}, although no other worker was at work: see that the machine has memory left, and that nobody "
            "ends processes"
        )

    def record(self, task: TarTask, result: TarResult) -> None:
        """Record an indexed tar, durably."""
        self.db.record(task, result)
        self.progress.add(len(result.names))
        self.on_result()
