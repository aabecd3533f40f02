"""Make all shards of a build with parallel workers, and survive pictures that crash the decoder.

The work goes in rounds. A round makes the open shards in parallel. A task whose worker crashed is then repeated with no
other worker running, so that a picture gets all memory before it is blamed; only a picture that crashes its worker a
second time is excluded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from shards.building.build_dbs import BuildDbs
from shards.building.holdout import TRAIN
from shards.building.interruption import BuildStopped, Interruption
from shards.building.part import ListedPicture
from shards.building.progress import Progress
from shards.building.shard import ShardOptions, ShardResult, ShardTask
from shards.building.workers import WorkerCrash, Workers

MAX_CRASHES = 16  # per round; then the tasks that crashed are repeated first: the machine may lack memory for so many
MAX_TRIES = 3  # of one task alone; after that the cause is not one of its pictures
MAX_LEFT_OUT = 100, 0.01  # pictures, or share of all pictures, per attempt: more of them hint at a faulty machine


def make_shards(
    build_dbs: BuildDbs,
    options: ShardOptions,
    workers: int,
    shard_samples: int,
    on_results: Sequence[Callable[[int, int], None]],
    interruption: Interruption,
) -> int:
    """Make the shards that do not exist yet, and return the number of pictures that were processed.

    Args:
        build_dbs: of the build.
        options: of the build.
        workers: processes.
        shard_samples: source pictures per shard.
        on_results: for each dataset, what is called with the number of each task that is recorded, and its samples to
            train on.
        interruption: ends the build.

    Raises:
        BuildStopped: interrupted, the disk is full, or workers crash without a picture as the cause.
    """
    todo, tasks = build_dbs.count_open(shard_samples)
    total = build_dbs.count_pictures(shard_samples)
    progress = Progress(total, total - todo)
    maker = ShardMaker(build_dbs, options, progress, interruption.check_before(progress.show), on_results)
    try:
        while tasks:
            for task, crash in maker.run_round(min(workers, tasks), shard_samples):
                maker.retry_crashed(task, crash)
            tasks = build_dbs.count_open(shard_samples)[1]
    finally:
        progress.close()
    return todo


@dataclass
class ShardMaker:
    """Runs tasks and decides what a crash means."""

    build_dbs: BuildDbs
    options: ShardOptions
    progress: Progress
    on_tick: Callable[[int], None]
    on_results: Sequence[Callable[[int, int], None]]
    left_out: int = 0
    """Pictures excluded in this attempt because they crash workers."""

    def run_round(self, workers: int, shard_samples: int) -> list[tuple[ShardTask, WorkerCrash]]:
        """Run the open tasks in parallel, and return those whose worker crashed."""
        crashes: list[tuple[ShardTask, WorkerCrash]] = []
        # takewhile reads len(crashes) each time a worker asks for a task, so too many crashes end the round early.
        tasks = takewhile(lambda _: len(crashes) < MAX_CRASHES, self.build_dbs.open_tasks(shard_samples))
        with Workers(workers, self.options) as pool:
            for task, result in pool.run(tasks, self.on_tick):
                if isinstance(result, WorkerCrash):
                    self.progress.print_line(f"{result}: this is tried again with no other worker at work")
                    crashes.append((task, result))
                else:
                    self.record(task, result)
        return crashes

    def retry_crashed(self, task: ShardTask, crash: WorkerCrash) -> None:
        """Repeat a task that crashed, alone; exclude its picture if that crashes a second worker.

        The picture is first tried by itself (a trial that leaves no shard): if it does not crash again, the first crash
        had another cause, such as memory that other workers held.

        Raises:
            BuildStopped: workers crash, and no picture is the cause.
        """
        for _ in range(MAX_TRIES):
            if crash.picture is not None and crash.reason:
                picture = task.pictures[crash.picture]
                again = self.run_alone(replace(task, pictures=[picture], trial=True))
                if isinstance(again, WorkerCrash) and again.picture is not None and again.reason:
                    self.leave_out(picture, again.reason, again)
                    return
            result = self.run_alone(task)
            if not isinstance(result, WorkerCrash):
                self.record(task, result)
                return
            crash = result
        raise BuildStopped(
            f"{crash}, although no other worker was at work and no picture ends it each time: "
            "see that the machine has memory left, and that nobody ends processes"
        )

    def leave_out(self, picture: ListedPicture, reason: str, crash: WorkerCrash) -> None:
        """Exclude the picture that crashed a worker twice.

        Raises:
            BuildStopped: too many were excluded already.
        """
        least, share = MAX_LEFT_OUT
        if self.left_out >= max(least, share * self.build_dbs.pictures):
            raise BuildStopped(f"{crash}, after {self.left_out:,} others: see that the machine has memory for them")
        self.left_out += 1
        self.build_dbs.record_crash(picture, reason, f"its process {crash.how}")
        self.progress.print_line(f"{crash}, and no other worker was at work: the picture is left out")

    def run_alone(self, task: ShardTask) -> list[ShardResult] | WorkerCrash:
        """Run a task with no other worker, so that it has all memory."""
        with Workers(1, self.options) as pool:
            ((_, result),) = pool.run(iter([task]), self.on_tick)
        return result

    def record(self, task: ShardTask, results: list[ShardResult]) -> None:
        """Record a finished task, durably."""
        self.build_dbs.record_results(task, results)
        for output, result in zip(task.outputs, results, strict=True):
            self.on_results[output](task.number, result.parts[TRAIN].samples)
        self.progress.add(len(task.pictures))
