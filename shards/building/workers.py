"""Worker processes: each does one task after the other, and a crash is noticed and explained.

multiprocessing.Pool and concurrent.futures do not say at which task, and at which picture, a process died; a decoder
that segfaults on hostile bytes makes that necessary.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, Protocol, TypeVar

from command_line.parent import end_with_parent
from shards.building.interruption import INTERRUPTED, SIGNALS, BuildStopped

Task = TypeVar("Task")
Result = TypeVar("Result")
Taken = TypeVar("Taken", contravariant=True)
Given = TypeVar("Given", covariant=True)

OUT_OF_MEMORY = 12  # exit code of a worker: ENOMEM
POLL_S = 0.5  # between updates of the progress
MAX_CPU_S = 600.0  # CPU time for one picture: the largest allowed one needs far less, so more means a decoder hangs
NOT_STARTED = -1
KEPT_MEMORY = {-3: 32 << 20, -1: 64 << 20}  # malloc.h: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, in bytes
# Signals by which a picture can end its process. Others come from elsewhere: a terminal that closes, a person.
SIGNALS_OF_PICTURES = {signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL,
                       signal.SIGSYS, signal.SIGTRAP}  # fmt: skip


class Work(Protocol[Taken, Given]):
    """What workers do. It is sent to each of them once."""

    def run(self, task: Taken, on_picture: Callable[[int], None]) -> Given:
        """Do a task.

        Args:
            task: to be done.
            on_picture: called with the number of finished pictures, before each picture and at the end.

        Raises:
            OSError: it cannot be done here, as on a full disk.
        """

    def name_of(self, task: Taken, number: int) -> str | None:
        """Return what a message calls the picture of this number; None: the task has no such picture."""

    def clean_up(self, task: Taken, pid: int) -> None:
        """Remove what a process that crashed has left of a task."""


@dataclass(frozen=True)
class WorkerCrash:
    """A worker process that ended before its task was finished."""

    pid: int
    how: str
    """Such as "was ended by SIGSEGV"."""
    reason: str | None
    """The key of REASONS under which the picture is excluded if it is the cause; None: it cannot be the cause."""
    picture: int | None
    """The number in its task of the one that was being decoded; None: it had not started or had finished decoding."""
    name: str | None
    """Of the picture."""

    def __str__(self) -> str:
        return f"worker process {self.pid} {self.how}" + (f" at {self.name!r}" if self.name else "")


@dataclass
class Worker(Generic[Task, Result]):
    """A process, and the task that it runs now."""

    process: BaseProcess
    connection: Connection
    done: ctypes.c_int64
    """Pictures of its task that are done, or NOT_STARTED; in shared memory, so that it outlives the process."""
    work: Work[Task, Result]
    task: Task | None = None

    def send_task(self, task: Task) -> None:
        """Send it a task; if it has died meanwhile, `receive_result` reports that."""
        self.task, self.done.value = task, NOT_STARTED
        try:
            self.connection.send(task)
        except OSError:
            return

    def receive_result(self) -> tuple[Task, Result | WorkerCrash]:
        """Return its task, with the result or the crash.

        Raises:
            BuildStopped: it cannot do the task here.
        """
        assert self.task is not None, "only workers with a task are waited for"
        task, self.task = self.task, None
        try:
            answer: Result | str = self.connection.recv()
        except (EOFError, OSError):
            return task, self.exit_reason(task)
        if isinstance(answer, str):
            raise BuildStopped(answer)
        return task, answer

    def exit_reason(self, task: Task) -> WorkerCrash:
        """Wait for the process, which has closed its connection, and return how it ended and at which picture."""
        self.process.join()
        how, reason = describe_exit(self.process.exitcode or 0)
        name = self.work.name_of(task, self.done.value) if self.done.value >= 0 else None
        return WorkerCrash(self.process.pid or 0, how, reason, None if name is None else self.done.value, name)


def describe_exit(code: int) -> tuple[str, str | None]:
    """Return in words how a process with this exit code ended, and the reason to exclude its picture."""
    if code == OUT_OF_MEMORY:
        return "ran out of memory", "out_of_memory"
    if code >= 0:
        return f"ended with exit code {code}", "kills_worker"
    number = signal.Signals(-code)
    if number == signal.SIGPROF:
        return f"had computed for {MAX_CPU_S:g} s", "too_slow"
    why = ", as when memory runs out" if number == signal.SIGKILL else ""
    return f"was ended by {number.name}{why}", "kills_worker" if number in SIGNALS_OF_PICTURES else None


class Workers(Generic[Task, Result]):
    """Worker processes that live as long as the `with` block.

    Args:
        count: how many.
        work: what they do.
    """

    def __init__(self, count: int, work: Work[Task, Result]) -> None:
        self.count, self.work = count, work
        self.workers: list[Worker[Task, Result]] = []

    def __enter__(self) -> Workers[Task, Result]:
        resource_tracker.ensure_running()  # first: its start unblocks the signals that start_blocked blocks
        self.workers = [self.start_blocked() for _ in range(self.count)]
        return self

    def start_blocked(self) -> Worker[Task, Result]:
        """Start a process that ignores Ctrl-C, SIGHUP and SIGTERM, and a scheduler's warnings: SIGUSR1 and SIGUSR2.

        A terminal and a scheduler send these to all processes; the parent answers, and ends the workers itself.
        """
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS | {signal.SIGUSR1, signal.SIGUSR2})
        try:
            return self.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

    def start(self) -> Worker[Task, Result]:
        """Start a process, which inherits the blocked signals."""
        context = multiprocessing.get_context("spawn")  # fork would copy locks that other threads of the parent hold
        here, there = context.Pipe()
        done = context.RawValue(ctypes.c_int64)
        process = context.Process(target=run_worker, args=(there, self.work, done), daemon=True)
        process.start()
        there.close()  # else the connection would stay open when the process dies
        return Worker(process, here, done, self.work)

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.process.kill()  # an unfinished shard has a temporary name, and is written again
        for worker in self.workers:
            worker.process.join()
            worker.connection.close()  # after the join: a worker that is answering would print a traceback

    def run(self, tasks: Iterator[Task], on_tick: Callable[[int], None]) -> Iterator[tuple[Task, Result | WorkerCrash]]:
        """Yield each task with its result or its crash, in the order in which they end.

        Args:
            tasks: what to run; the next one is taken when a worker is free.
            on_tick: called about every POLL_S with the number of finished pictures of unfinished tasks.

        Raises:
            BuildStopped: a worker cannot do a task here.
        """
        for place in range(len(self.workers)):
            self.send_next_task(place, tasks)
        while busy := {worker.connection: place for place, worker in enumerate(self.workers) if worker.task}:
            for connection in wait(list(busy), POLL_S):
                place = next(place for known, place in busy.items() if known is connection)
                task, result = self.workers[place].receive_result()
                if isinstance(result, WorkerCrash):
                    self.work.clean_up(task, result.pid)
                self.send_next_task(place, tasks)
                yield task, result
            on_tick(sum(max(0, worker.done.value) for worker in self.workers if worker.task))

    def send_next_task(self, place: int, tasks: Iterator[Task]) -> None:
        """Send the next task, if there is one, to a free worker; a dead worker is replaced first."""
        if task := next(tasks, None):
            if not self.workers[place].process.is_alive():
                self.workers[place].connection.close()
                self.workers[place] = self.start_blocked()
            self.workers[place].send_task(task)


def keep_memory() -> None:
    """Let the C library keep some freed memory, where it is glibc.

    Else each picture of some megabytes gets new pages from the kernel, which takes about a tenth of decoding's time.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in KEPT_MEMORY.items():
            mallopt(parameter, size)


def run_worker(connection: Connection, work: Work[Task, Result], done: ctypes.c_int64) -> None:
    """Run one task after the other: the main function of a worker process."""
    keep_memory()
    end_with_parent(INTERRUPTED)  # else it might write beside a resumed build
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # webdataset's writer does not need torch, which takes seconds to import

    def on_picture(number: int) -> None:
        done.value = number
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)  # SIGPROF then ends the process, even inside C code

    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        try:
            result = work.run(task, on_picture)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # memory that is fragmented or leaked would fail the next pictures too
        except OSError as error:
            connection.send(str(error))
            os._exit(0)  # closing what could not be written would fail again, and print that
        connection.send(result)
