"""A build that several jobs share: one lists the source, each makes its share of the shards, and one finishes.

`list_tasks` comes first, then `build_share` for each share, in any order and on any machine that sees the work folder,
and `finish_shares` last. Each can be killed and repeated. The result is that of `build_dataset`, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from shards.building.build import build_dataset, lock_folder, open_work_folders, sizes_of, unfinished_sizes
from shards.building.build_db import RESULTS, BuildDb
from shards.building.build_dbs import BuildDbs
from shards.building.interruption import Interruption
from shards.building.make_shards import make_shards
from shards.building.options import Build, shard_samples_of
from shards.building.phases import LISTING, list_source, open_build_sources, output_of
from shards.building.shard import ShardOptions
from shards.building.share_results import Share, merge_shares
from shards.sources.source import Source


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


def work_folders(args: Build) -> list[Path]:
    """Return the folders of what is unfinished, one for each size."""
    return [size.work for size in sizes_of(args)]


def list_tasks(args: Build, interruption: Interruption) -> ListedWork | None:
    """List the source, and return what is to be done; None: the dataset is complete, in all sizes.

    Raises:
        DataError: the arguments, the source or a folder do not allow it.
        BuildStopped: interrupted, or the disk does not do its work.
    """
    sizes = unfinished_sizes(args)
    if not sizes:
        return None
    works = [size.work for size in sizes]
    with open_work_folders([size.folder for size in sizes], LISTING), ExitStack() as stack:
        source = list_source(args, works, [size.settings for size in sizes], interruption)
        databases = [stack.enter_context(closing(BuildDb(work / LISTING))) for work in works]
        for database, work in zip(databases, works, strict=True):
            merge_shares(database.database, work, RESULTS)
        pictures = databases[0].pictures
        return ListedWork(pictures, [*open_tasks(databases, source, shard_samples_of(args, pictures))])


def open_tasks(databases: Sequence[BuildDb], source: Source, shard_samples: int) -> Iterator[OpenTask]:
    """Yield the tasks without all results, with the bytes of their pictures."""
    wanted = {number for number, *_ in BuildDbs(databases).open_ranges(shard_samples)}
    places = databases[0].places()
    for number, rows in databases[0].task_ranges(shard_samples):
        # The places of done tasks, too, so that those of the next task follow.
        read = sum(source.size_of(place) for place in islice(places, len(rows)))
        if number in wanted:
            yield OpenTask(number, len(rows), read)


def build_share(args: Build, share: Share, interruption: Interruption, tell: Callable[[int], None]) -> None:
    """Make the shards of a share, of all sizes that are not complete.

    Args:
        args: of the build.
        share: of its tasks.
        interruption: ends it.
        tell: called at the beginning, and after each task, with the pictures of the tasks that are still open.

    Raises:
        DataError: the source is not there, or another build is at work in a folder.
        BuildStopped: interrupted, or it cannot go on.
    """
    sizes = [size for size in sizes_of(args) if (size.work / LISTING).exists()]
    with ExitStack() as stack:
        for size in sizes:
            stack.enter_context(lock_folder(size.work, shared=True))
        databases = BuildDbs([stack.enter_context(closing(BuildDb(size.work / LISTING, share))) for size in sizes])
        shard_samples = shard_samples_of(args, databases.pictures)
        _, source = open_build_sources(args, sizes[0].work, interruption)
        waiting = {number: len(rows) for number, rows, _ in databases.open_ranges(shard_samples)}
        left = sum(waiting.values())
        tell(left)

        def on_result(number: int, trained: int) -> None:
            nonlocal left
            if done := waiting.pop(number, 0):  # else another size has told of it
                left -= done
                tell(left)

        options = ShardOptions(source, args.max_bytes, tuple(output_of(size.args, size.work) for size in sizes))
        make_shards(databases, options, args.workers, shard_samples, [on_result] * len(sizes), interruption)


def finish_shares(args: Build, interruption: Interruption) -> None:
    """Complete the dataset of which all shares are made, and print its summary.

    What a share lacks is made here, by `build_dataset`: all that it needs is in the folder.
    """
    build_dataset(replace(args, resume=True), (), interruption)
