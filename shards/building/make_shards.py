"""Make all shards, in rounds: what ended a worker in one is tried by itself before the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import takewhile

from shards.building.build_db import BuildDb
from shards.building.interruption import BuildStopped, Interruption
from shards.building.progress import Progress
from shards.building.shard import ListedPicture, ShardOptions, ShardResult, ShardTask
from shards.building.workers import WorkerCrash, Workers

MAX_CRASHES = 16  # in a round: then it is time to look at the causes
MAX_TRIES = 3  # of a task by itself, before something else than its pictures must be the cause
MAX_LEFT_OUT = 100, 0.01  # pictures, or a share of all, in one attempt: more speak for a fault of the machine


def make_shards(
    build_db: BuildDb, options: ShardOptions, workers: int, shard_samples: int, interruption: Interruption
) -> int:
    """Make the shards that are not there yet and return the number of pictures looked at.

    Raises:
        Stopped: the machine does not allow it.
    """
    total, todo, tasks = build_db.count_open(shard_samples)
    progress = Progress(total, total - todo)
    maker = ShardMaker(build_db, options, progress, interruption.check_before(progress.show))
    try:
        while tasks:
            for task, crash in maker.run_round(min(workers, tasks), shard_samples):
                maker.retry_crashed(task, crash)
            tasks = build_db.count_open(shard_samples)[2]
    finally:
        progress.close()
    return todo


@dataclass
class ShardMaker:
    """The making of all shards."""

    build_db: BuildDb
    options: ShardOptions
    progress: Progress
    on_tick: Callable[[int], None]
    left_out: int = 0
    """Pictures, in this attempt."""

    def run_round(self, workers: int, shard_samples: int) -> list[tuple[ShardTask, WorkerCrash]]:
        """Do what is to do in parallel, and return the tasks whose worker died."""
        crashes: list[tuple[ShardTask, WorkerCrash]] = []
        tasks = takewhile(lambda _: len(crashes) < MAX_CRASHES, self.build_db.open_tasks(shard_samples))
        with Workers(workers, self.options) as pool:
            for task, result in pool.run(tasks, self.on_tick):
                if isinstance(result, WorkerCrash):
                    self.progress.print_line(f"{result}: this is tried again with no other worker at work")
                    crashes.append((task, result))
                else:
                    self.record(task, result)
        return crashes

    def retry_crashed(self, task: ShardTask, crash: WorkerCrash) -> None:
        """Leave out the picture at which a worker died, if it ends another one that has the machine for itself; else do
        its task.

        Raises:
            Stopped: workers die, and no picture is the cause.
        """
        for _ in range(MAX_TRIES):
            if crash.picture and crash.reason:
                again = self.run_alone(replace(task, pictures=[crash.picture], trial=True))
                if isinstance(again, WorkerCrash) and again.picture and again.reason:
                    self.leave_out(again.picture, again.reason, again)
                    return
            result = self.run_alone(task)
            if isinstance(result, ShardResult):
                self.record(task, result)
                return
            crash = result
        raise BuildStopped(
            f"{crash}, although no other worker was at work and no picture ends it each time: "
            "see that the machine has memory left, and that nobody ends processes"
        )

    def leave_out(self, picture: ListedPicture, reason: str, crash: WorkerCrash) -> None:
        """Exclude the picture of a crash.

        Raises:
            Stopped: there were too many.
        """
        least, share = MAX_LEFT_OUT
        if self.left_out >= max(least, share * sum(self.build_db.pictures.values())):
            raise BuildStopped(f"{crash}, after {self.left_out:,} others: see that the machine has memory for them")
        self.left_out += 1
        self.build_db.record_crash(picture, reason, f"its process {crash.how}")
        self.progress.print_line(f"{crash}, and no other worker was at work: the picture is left out")

    def run_alone(self, task: ShardTask) -> ShardResult | WorkerCrash:
        """Do a task with no other worker at work, so that it has all memory."""
        with Workers(1, self.options) as pool:
            ((_, result),) = pool.run(iter([task]), self.on_tick)
        return result

    def record(self, task: ShardTask, result: ShardResult) -> None:
        """Keep a finished shard."""
        self.build_db.record_result(task, result)
        self.progress.add(len(task.pictures))
