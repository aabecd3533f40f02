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

from shards.found import to_text
from shards.interruption import SIGNALS, Stopped
from shards.shard import Job, Piece, Recipe, write_shard

INTERRUPTED = 75  # EX_TEMPFAIL: the same command with --resume goes on
TICK_S = 0.5  # between looks at the progress


@dataclass
class Worker:
    """A process and what it does now."""

    process: BaseProcess
    connection: Connection
    done: ctypes.c_int64
    """In shared memory: the pictures of its job that are done."""
    job: Job | None = None

    def give(self, job: Job) -> None:
        """Send it a job; should it have died meanwhile, `take` says so."""
        self.job, self.done.value = job, 0
        try:
            self.connection.send(job)
        except OSError:
            return

    def take(self) -> tuple[Job, Piece]:
        """Return its finished job.

        Raises:
            Stopped: it failed or died.
        """
        assert self.job is not None, "only workers with a job are waited for"
        try:
            answer: Piece | str = self.connection.recv()
        except (EOFError, OSError):
            raise Stopped(self.obituary(self.job)) from None
        if isinstance(answer, str):
            raise Stopped(answer)
        job, self.job = self.job, None
        return job, answer

    def obituary(self, job: Job) -> str:
        """Say how the process ended, and at which picture."""
        self.process.join()
        code = self.process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        cause = (
            ", as when memory runs out: try fewer --workers or a lower --max-pixels" if code == -signal.SIGKILL else ""
        )
        place = f" at {to_text(job.pictures[self.done.value].name)!r}" if self.done.value < len(job.pictures) else ""
        return f"worker process {self.process.pid} {how}{place}{cause}"


class Workers:
    """Processes that are there from `with` to its end.

    Args:
        count: how many.
        recipe: of all shards.
    """

    def __init__(self, count: int, recipe: Recipe) -> None:
        self.count, self.recipe = count, recipe
        self.workers: list[Worker] = []

    def __enter__(self) -> Workers:
        # Ctrl-C, a closing terminal's SIGHUP and a scheduler's SIGTERM reach all processes: for the workers, the parent
        # decides.
        resource_tracker.ensure_running()  # its own start unblocks them
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.workers = [self.start() for _ in range(self.count)]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        return self

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
            worker.connection.close()
            worker.process.kill()  # what is not finished has a temporary name, and is written again
        for worker in self.workers:
            worker.process.join()

    def run(self, jobs: Iterator[Job], on_tick: Callable[[int], None]) -> Iterator[tuple[Job, Piece]]:
        """Yield each job with what became of it, in the order in which they are finished.

        Args:
            jobs: what to do; drawn from as workers become free.
            on_tick: told now and then how many pictures of unfinished jobs are done.

        Raises:
            Stopped: a worker failed or died.
        """
        for worker in self.workers:
            self.give_next(worker, jobs)
        while busy := {worker.connection: worker for worker in self.workers if worker.job}:
            for connection in wait(list(busy), TICK_S):
                worker = next(worker for worker in self.workers if worker.connection is connection)
                finished = worker.take()
                self.give_next(worker, jobs)
                yield finished
            on_tick(sum(worker.done.value for worker in self.workers if worker.job))

    @staticmethod
    def give_next(worker: Worker, jobs: Iterator[Job]) -> None:
        """Give a free worker the next job, if there is one."""
        if job := next(jobs, None):
            worker.give(job)


def work(connection: Connection, recipe: Recipe, done: ctypes.c_int64) -> None:
    """Do one job after the other: what a worker process runs."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # webdataset's writer does without, and loads fast

    def on_picture(number: int) -> None:
        done.value = number

    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        answer: Piece | str
        try:
            answer = write_shard(job, recipe, on_picture)
        except OSError as error:
            answer = f"cannot write to {recipe.folder.parent}: {error.strerror or error}"
        except MemoryError:
            answer = f"out of memory at {to_text(job.pictures[done.value].name)!r}: try a lower --max-pixels"
        connection.send(answer)


def end_with_parent() -> None:
    """End this process as soon as its parent is gone, killed perhaps, so that it cannot meet a resumed build."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(INTERRUPTED)
