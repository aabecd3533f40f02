"""A build that several jobs share: one lists the source, each makes its share of the shards, and one finishes.

`list_tasks` comes first, then `build_share` for each share, in any order and on any machine that sees the work folder,
and `finish_shares` last. Each can be killed and repeated. The result is that of `build_dataset`, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from shards.building.build import WORK, build_dataset, is_finished, lock_folder, open_work_folder
from shards.building.build_db import RESULTS, BuildDb
from shards.building.interruption import Interruption
from shards.building.make_shards import make_shards
from shards.building.options import Build, check_options, settings_of, shard_samples_of
from shards.building.phases import LISTING, list_source, open_build_source, shard_options
from shards.building.remote_out import local_folder
from shards.building.share_results import Share, merge_shares
from shards.sources.source import Source, open_source


class OpenTask(NamedTuple):
    """A task without a result."""

    number: int
    size: int  # pictures in it; of an indexing, one tar
    bytes: int  # that are read for it


@dataclass(frozen=True)
class ListedWork:
    """What is to be done for a dataset."""

    total: int
    """Pictures, or tars, in all."""
    tasks: Sequence[OpenTask]
    """Those without a result, by their number."""


def work_folder(args: Build) -> Path:
    """Return the folder of what is unfinished of a build."""
    return local_folder(args) / WORK


def list_tasks(args: Build, interruption: Interruption) -> ListedWork | None:
    """List the source, and return what is to be done; None: the dataset is complete.

    Raises:
        DataError: the arguments, the source or the folder do not allow it.
        BuildStopped: interrupted, or the disk does not do its work.
    """
    check_options(args)
    settings, folder = settings_of(args), local_folder(args)
    if isinstance(args.source, Path):
        open_source(args.source, args.follow_links)  # before a folder is made for it
    if is_finished(args, folder, settings):
        return None
    with open_work_folder(folder, LISTING) as work:
        source = list_source(work, args, settings, interruption)
        with closing(BuildDb(work / LISTING)) as build_db:
            merge_shares(build_db.database, work, RESULTS)
            tasks = open_tasks(build_db, source, shard_samples_of(args, build_db.pictures))
            return ListedWork(build_db.pictures, [*tasks])


def open_tasks(build_db: BuildDb, source: Source, shard_samples: int) -> Iterator[OpenTask]:
    """Yield the tasks without a result, with the bytes of their pictures."""
    wanted = dict(build_db.open_ranges(shard_samples))
    places = build_db.places()
    for number, rows in build_db.task_ranges(shard_samples):
        # The places of done tasks, too, so that those of the next task follow.
        size = sum(source.size_of(place) for place in islice(places, len(rows)))
        if number in wanted:
            yield OpenTask(number, len(rows), size)


def build_share(args: Build, share: Share, interruption: Interruption, tell: Callable[[int], None]) -> None:
    """Make the shards of a share.

    Args:
        args: of the build.
        share: of its tasks.
        interruption: ends it.
        tell: called at the beginning, and after each task, with the pictures of the tasks that are still open.

    Raises:
        DataError: the source is not there, or another build is at work in the folder.
        BuildStopped: interrupted, or it cannot go on.
    """
    work = work_folder(args)
    with lock_folder(work, shared=True), closing(BuildDb(work / LISTING, share)) as build_db:
        shard_samples = shard_samples_of(args, build_db.pictures)
        _, source = open_build_source(work, args, interruption)

        left = build_db.count_open(shard_samples)[1]
        tell(left)

        def on_result(number: int, trained: int) -> None:
            nonlocal left
            left -= len(build_db.task_rows(number, shard_samples))
            tell(left)

        options = shard_options(args, source, work)
        make_shards(build_db, options, args.workers, shard_samples, on_result, interruption)


def finish_shares(args: Build, interruption: Interruption) -> None:
    """Complete the dataset of which all shares are made, and print its summary.

    What a share lacks is made here, by `build_dataset`: all that it needs is in the folder.
    """
    build_dataset(replace(args, resume=True), interruption)
