"""The processes that make shards: each takes one job after the other, and its death is noticed and explained."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from shards.building.interruption import SIGNALS, Stopped
from shards.building.shard import Listed, ShardOptions, ShardResult, ShardTask, unfinished_file, write_shard
from shards.sources.source_entry import to_text

INTERRUPTED = 75  # EX_TEMPFAIL: the same command with --resume goes on
OUT_OF_MEMORY = 12  # exit code of a worker: ENOMEM
TICK_S = 0.5  # between looks at the progress
MOST_CPU_S = 600.0  # of computing for one picture: none of --max-pixels comes near, and a decoder that hangs ends
NOT_BEGUN = -1
# By what a picture may end its process. The others come from elsewhere: a terminal that closes, a person.
BY_PICTURES = {signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL,
               signal.SIGSYS, signal.SIGTRAP}  # fmt: skip


@dataclass(frozen=True)
class Death:
    """A worker process that ended before its job was done."""

    pid: int
    how: str
    """ "it was ended by SIGSEGV" and the like."""
    reason: str | None
    """Why its picture is to be left out, should it be the cause: a key of REASONS. None: it cannot be."""
    picture: Listed | None
    """The one that it was at."""

    def __str__(self) -> str:
        at = f" at {to_text(self.picture.name)!r}" if self.picture else ""
        return f"worker process {self.pid} {self.how}{at}"


@dataclass
class Worker:
    """A process and what it does now."""

    process: BaseProcess
    connection: Connection
    done: ctypes.c_int64
    """In shared memory: the pictures of its job that are done, or NOT_BEGUN."""
    job: ShardTask | None = None

    def give(self, job: ShardTask) -> None:
        """Send it a job; should it have died meanwhile, `take` says so."""
        self.job, self.done.value = job, NOT_BEGUN
        try:
            self.connection.send(job)
        except OSError:
            return

    def take(self) -> tuple[ShardTask, ShardResult | Death]:
        """Return its job, and what became of it.

        Raises:
            Stopped: it cannot write.
        """
        assert self.job is not None, "only workers with a job are waited for"
        job, self.job = self.job, None
        try:
            answer: ShardResult | str = self.connection.recv()
        except (EOFError, OSError):
            return job, self.exit_reason(job)
        if isinstance(answer, str):
            raise Stopped(answer)
        return job, answer

    def exit_reason(self, job: ShardTask) -> Death:
        """Say how the process ended, and at which picture."""
        self.process.join()
        how, reason = cause(self.process.exitcode or 0)
        begun = 0 <= self.done.value < len(job.pictures)
        return Death(self.process.pid or 0, how, reason, job.pictures[self.done.value] if begun else None)


def cause(code: int) -> tuple[str, str | None]:
    """Return how a process ended, in words, and the reason to exclude its picture, if that did it."""
    if code == OUT_OF_MEMORY:
        return "ran out of memory", "out_of_memory"
    if code >= 0:
        return f"ended with exit code {code}", "kills_worker"
    number = signal.Signals(-code)
    if number == signal.SIGPROF:
        return f"had computed for {MOST_CPU_S:g} s", "too_slow"
    why = ", as when memory runs out" if number == signal.SIGKILL else ""
    return f"was ended by {number.name}{why}", "kills_worker" if number in BY_PICTURES else None


class Workers:
    """Processes that are there from `with` to its end.

    Args:
        count: how many.
        recipe: of all shards.
    """

    def __init__(self, count: int, recipe: ShardOptions) -> None:
        self.count, self.recipe = count, recipe
        self.workers: list[Worker] = []

    def __enter__(self) -> Workers:
        resource_tracker.ensure_running()  # its own start unblocks the signals
        self.workers = [self.start_blocked() for _ in range(self.count)]
        return self

    def start_blocked(self) -> Worker:
        """Start a process with blocked signals: Ctrl-C, a closing terminal's SIGHUP and a scheduler's SIGTERM reach all
        processes; for the workers, the parent decides."""
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return self.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

    def start(self) -> Worker:
        """Start a process, which inherits the blocked signals."""
        context = multiprocessing.get_context("spawn")  # no threads or locks of the parent come along
        here, there = context.Pipe()
        done = context.RawValue(ctypes.c_int64)
        process = context.Process(target=work, args=(there, self.recipe, done), daemon=True)
        process.start()
        there.close()  # so that the death of the process ends the connection
        return Worker(process, here, done)

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.process.kill()  # what is not finished has a temporary name, and is written again
        for worker in self.workers:
            worker.process.join()
            worker.connection.close()  # not before: a worker that was just to answer would complain

    def run(
        self, jobs: Iterator[ShardTask], on_tick: Callable[[int], None]
    ) -> Iterator[tuple[ShardTask, ShardResult | Death]]:
        """Yield each job with what became of it, in the order in which they end.

        Args:
            jobs: what to do; drawn from as workers become free.
            on_tick: told now and then how many pictures of unfinished jobs are done.

        Raises:
            Stopped: a worker cannot write.
        """
        for place in range(len(self.workers)):
            self.give_next(place, jobs)
        while busy := {worker.connection: place for place, worker in enumerate(self.workers) if worker.job}:
            for connection in wait(list(busy), TICK_S):
                place = next(place for known, place in busy.items() if known is connection)
                job, result = self.workers[place].take()
                if isinstance(result, Death):
                    unfinished_file(self.recipe.folder, job, result.pid).unlink(missing_ok=True)
                self.give_next(place, jobs)
                yield job, result
            on_tick(sum(max(0, worker.done.value) for worker in self.workers if worker.job))

    def give_next(self, place: int, jobs: Iterator[ShardTask]) -> None:
        """Give a free worker the next job, if there is one, and a dead one's to another process in its place."""
        if job := next(jobs, None):
            if not self.workers[place].process.is_alive():
                self.workers[place].connection.close()
                self.workers[place] = self.start_blocked()
            self.workers[place].give(job)


def work(connection: Connection, recipe: ShardOptions, done: ctypes.c_int64) -> None:
    """Do one job after the other: what a worker process runs."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # webdataset's writer does without, and loads fast

    def on_picture(number: int) -> None:
        done.value = number
        signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)  # at its end SIGPROF ends the process, whatever that is at

    while True:
        try:
            job: ShardTask = connection.recv()
        except EOFError:
            return
        answer: ShardResult | str
        try:
            answer = write_shard(job, recipe, on_picture)
        except OSError as error:
            answer = f"cannot write to {recipe.folder.parent}: {error.strerror or error}"
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # what is left of the process may be short of memory for ever
        connection.send(answer)


def end_with_parent() -> None:
    """End this process as soon as its parent is gone, killed perhaps, so that it cannot meet a resumed build."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(INTERRUPTED)
