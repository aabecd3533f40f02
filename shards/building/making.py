"""Make all shards, in rounds: what ended a worker in one is tried by itself before the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import takewhile

from shards.building.build_db import BuildDb
from shards.building.interruption import Interruption, Stopped
from shards.building.progress import Progress
from shards.building.shard import Listed, ShardOptions, ShardResult, ShardTask
from shards.building.workers import Death, Workers

MOST_DEATHS = 16  # in a round: then it is time to look at the causes
TRIES = 3  # of a job by itself, before something else than its pictures must be the cause
MOST_LEFT_OUT = 100, 0.01  # pictures, or a share of all, in one attempt: more speak for a fault of the machine


def make_shards(
    ledger: BuildDb, recipe: ShardOptions, workers: int, shard_samples: int, interruption: Interruption
) -> int:
    """Make the shards that are not there yet and return the number of pictures looked at.

    Raises:
        Stopped: the machine does not allow it.
    """
    total, todo, jobs = ledger.to_do(shard_samples)
    progress = Progress(total, total - todo)
    making = Making(ledger, recipe, progress, interruption.between(progress.show))
    try:
        while jobs:
            for job, death in making.one_round(min(workers, jobs), shard_samples):
                making.settle(job, death)
            jobs = ledger.to_do(shard_samples)[2]
    finally:
        progress.close()
    return todo


@dataclass
class Making:
    """The making of all shards."""

    ledger: BuildDb
    recipe: ShardOptions
    progress: Progress
    on_tick: Callable[[int], None]
    left_out: int = 0
    """Pictures, in this attempt."""

    def one_round(self, workers: int, shard_samples: int) -> list[tuple[ShardTask, Death]]:
        """Do what is to do in parallel, and return the jobs whose worker died."""
        deaths: list[tuple[ShardTask, Death]] = []
        jobs = takewhile(lambda _: len(deaths) < MOST_DEATHS, self.ledger.open_jobs(shard_samples))
        with Workers(workers, self.recipe) as pool:
            for job, result in pool.run(jobs, self.on_tick):
                if isinstance(result, Death):
                    self.progress.say(f"{result}: this is tried again with no other worker at work")
                    deaths.append((job, result))
                else:
                    self.record(job, result)
        return deaths

    def settle(self, job: ShardTask, death: Death) -> None:
        """Leave out the picture at which a worker died, if it ends another one that has the machine for itself; else do
        its job.

        Raises:
            Stopped: workers die, and no picture is the cause.
        """
        for _ in range(TRIES):
            if death.picture and death.reason:
                again = self.alone(replace(job, pictures=[death.picture], trial=True))
                if isinstance(again, Death) and again.picture and again.reason:
                    self.leave_out(again.picture, again.reason, again)
                    return
            result = self.alone(job)
            if isinstance(result, ShardResult):
                self.record(job, result)
                return
            death = result
        raise Stopped(
            f"{death}, although no other worker was at work and no picture ends it each time: "
            "see that the machine has memory left, and that nobody ends processes"
        )

    def leave_out(self, picture: Listed, reason: str, death: Death) -> None:
        """Exclude the picture of a death.

        Raises:
            Stopped: there were too many.
        """
        least, share = MOST_LEFT_OUT
        if self.left_out >= max(least, share * sum(self.ledger.pictures.values())):
            raise Stopped(f"{death}, after {self.left_out:,} others: see that the machine has memory for them")
        self.left_out += 1
        self.ledger.leave_out(picture, reason, f"its process {death.how}")
        self.progress.say(f"{death}, and no other worker was at work: the picture is left out")

    def alone(self, job: ShardTask) -> ShardResult | Death:
        """Do a job with no other worker at work, so that it has all memory."""
        with Workers(1, self.recipe) as pool:
            ((_, result),) = pool.run(iter([job]), self.on_tick)
        return result

    def record(self, job: ShardTask, piece: ShardResult) -> None:
        """Keep a finished shard."""
        self.ledger.record(job, piece)
        self.progress.add(len(job.pictures))
