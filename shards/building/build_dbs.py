"""The databases of a build of several sizes: a task is open while one of them lacks its result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shards.building.build_db import BuildDb
from shards.building.part import ListedPicture
from shards.building.shard import ShardResult, ShardTask


class BuildDbs:
    """The open databases of a build.

    Args:
        databases: one for each size, all of the same listing.
    """

    def __init__(self, databases: Sequence[BuildDb]) -> None:
        self.databases = databases
        self.pictures = databases[0].pictures

    def count_pictures(self, shard_samples: int) -> int:
        """Return the number of pictures in all tasks; of a share, in those of the share."""
        return sum(len(rows) for _, rows in self.databases[0].task_ranges(shard_samples))

    def count_open(self, shard_samples: int) -> tuple[int, int]:
        """Return the numbers of pictures in open tasks, and of open tasks."""
        sizes = [len(rows) for _, rows, _ in self.open_ranges(shard_samples)]
        return sum(sizes), len(sizes)

    def open_tasks(self, shard_samples: int) -> Iterator[ShardTask]:
        """Yield the tasks without all results."""
        for number, rows, outputs in self.open_ranges(shard_samples):
            yield ShardTask(number, [*self.databases[0].read_listing(rows)], outputs)

    def open_ranges(self, shard_samples: int) -> Iterator[tuple[int, range, tuple[int, ...]]]:
        """Yield number, listing rows (from 0) and the databases that lack it, of each task without all results."""
        lacking = [dict(database.open_ranges(shard_samples)) for database in self.databases]
        for number in sorted(set().union(*lacking)):
            outputs = tuple(output for output, tasks in enumerate(lacking) if number in tasks)
            yield number, lacking[outputs[0]][number], outputs

    def record_results(self, task: ShardTask, results: Sequence[ShardResult]) -> None:
        """Store the results of a task, durably: each in a transaction of its own, so that those lost are made again."""
        for output, result in zip(task.outputs, results, strict=True):
            self.databases[output].record_result(task, result)

    def record_crash(self, picture: ListedPicture, reason: str, detail: str) -> None:
        """Store, durably, that decoding a picture crashes the process: no size opens it again."""
        for database in self.databases:
            database.record_crash(picture, reason, detail)
