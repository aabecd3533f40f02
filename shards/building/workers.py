"""The worker processes that make shards: each runs one task after the other, and a crash is noticed and explained.

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
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from command_line.parent import end_with_parent
from shards.building.interruption import INTERRUPTED, SIGNALS, BuildStopped
from shards.building.part import ListedPicture
from shards.building.shard import ShardOptions, ShardResult, ShardTask, unfinished_paths, write_shard
from shards.sources.source_entry import decode_name

OUT_OF_MEMORY = 12  # exit code of a worker: ENOMEM
POLL_S = 0.5  # between updates of the progress
MAX_CPU_S = 600.0  # CPU time for one picture: the largest allowed one needs far less, so more means a decoder hangs
NOT_STARTED = -1
# Signals by which a picture can end its process. Others come from elsewhere: a terminal that closes, a person.
SIGNALS_OF_PICTURES = {signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL,
                       signal.SIGSYS, signal.SIGTRAP}  # fmt: skip


@dataclass(frozen=True)
class WorkerCrash:
    """A worker process that ended before its task was finished."""

    pid: int
    how: str
    """Such as "was ended by SIGSEGV"."""
    reason: str | None
    """The key of REASONS under which the picture is excluded if it is the cause; None: it cannot be the cause."""
    picture: ListedPicture | None
    """The one that was being decoded; None: the worker had not started or had finished decoding."""

    def __str__(self) -> str:
        at = f" at {decode_name(self.picture.name)!r}" if self.picture else ""
        return f"worker process {self.pid} {self.how}{at}"


@dataclass
class Worker:
    """A process, and the task that it runs now."""

    process: BaseProcess
    connection: Connection
    done: ctypes.c_int64
    """Pictures of its task that are done, or NOT_STARTED; in shared memory, so that it outlives the process."""
    task: ShardTask | None = None

    def send_task(self, task: ShardTask) -> None:
        """Send it a task; if it has died meanwhile, `receive_result` reports that."""
        self.task, self.done.value = task, NOT_STARTED
        try:
            self.connection.send(task)
        except OSError:
            return

    def receive_result(self) -> tuple[ShardTask, ShardResult | WorkerCrash]:
        """Return its task, with the result or the crash.

        Raises:
            BuildStopped: it cannot write the shard.
        """
        assert self.task is not None, "only workers with a task are waited for"
        task, self.task = self.task, None
        try:
            answer: ShardResult | str = self.connection.recv()
        except (EOFError, OSError):
            return task, self.exit_reason(task)
        if isinstance(answer, str):
            raise BuildStopped(answer)
        return task, answer

    def exit_reason(self, task: ShardTask) -> WorkerCrash:
        """Wait for the process, which has closed its connection, and return how it ended and at which picture."""
        self.process.join()
        how, reason = describe_exit(self.process.exitcode or 0)
        begun = 0 <= self.done.value < len(task.pictures)
        return WorkerCrash(self.process.pid or 0, how, reason, task.pictures[self.done.value] if begun else None)


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


class Workers:
    """Worker processes that live as long as the `with` block.

    Args:
        count: how many.
        options: of the build.
    """

    def __init__(self, count: int, options: ShardOptions) -> None:
        self.count, self.options = count, options
        self.workers: list[Worker] = []

    def __enter__(self) -> Workers:
        resource_tracker.ensure_running()  # first: its start unblocks the signals that start_blocked blocks
        self.workers = [self.start_blocked() for _ in range(self.count)]
        return self

    def start_blocked(self) -> Worker:
        """Start a process that ignores Ctrl-C, SIGHUP and SIGTERM.

        A terminal and a scheduler send these to all processes; the parent answers, and ends the workers itself.
        """
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return self.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

    def start(self) -> Worker:
        """Start a process, which inherits the blocked signals."""
        context = multiprocessing.get_context("spawn")  # fork would copy locks that other threads of the parent hold
        here, there = context.Pipe()
        done = context.RawValue(ctypes.c_int64)
        process = context.Process(target=run_worker, args=(there, self.options, done), daemon=True)
        process.start()
        there.close()  # else the connection would stay open when the process dies
        return Worker(process, here, done)

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.process.kill()  # an unfinished shard has a temporary name, and is written again
        for worker in self.workers:
            worker.process.join()
            worker.connection.close()  # after the join: a worker that is answering would print a traceback

    def run(
        self, tasks: Iterator[ShardTask], on_tick: Callable[[int], None]
    ) -> Iterator[tuple[ShardTask, ShardResult | WorkerCrash]]:
        """Yield each task with its result or its crash, in the order in which they end.

        Args:
            tasks: what to run; the next one is taken when a worker is free.
            on_tick: called about every POLL_S with the number of finished pictures of unfinished tasks.

        Raises:
            BuildStopped: a worker cannot write a shard.
        """
        for place in range(len(self.workers)):
            self.send_next_task(place, tasks)
        while busy := {worker.connection: place for place, worker in enumerate(self.workers) if worker.task}:
            for connection in wait(list(busy), POLL_S):
                place = next(place for known, place in busy.items() if known is connection)
                task, result = self.workers[place].receive_result()
                if isinstance(result, WorkerCrash):
                    for path in unfinished_paths(self.options.folder, task, result.pid):
                        path.unlink(missing_ok=True)
                self.send_next_task(place, tasks)
                yield task, result
            on_tick(sum(max(0, worker.done.value) for worker in self.workers if worker.task))

    def send_next_task(self, place: int, tasks: Iterator[ShardTask]) -> None:
        """Send the next task, if there is one, to a free worker; a dead worker is replaced first."""
        if task := next(tasks, None):
            if not self.workers[place].process.is_alive():
                self.workers[place].connection.close()
                self.workers[place] = self.start_blocked()
            self.workers[place].send_task(task)


def run_worker(connection: Connection, options: ShardOptions, done: ctypes.c_int64) -> None:
    """Run one task after the other: the main function of a worker process."""
    end_with_parent(INTERRUPTED)  # else it might write beside a resumed build
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # webdataset's writer does not need torch, which takes seconds to import

    def on_picture(number: int) -> None:
        done.value = number
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)  # SIGPROF then ends the process, even inside C code

    while True:
        try:
            task: ShardTask = connection.recv()
        except EOFError:
            return
        answer: ShardResult | str
        try:
            answer = write_shard(task, options, on_picture)
        except OSError as error:
            answer = f"cannot write to {options.folder.parent}: {error.strerror or error}"
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # memory that is fragmented or leaked would fail the next pictures too
        connection.send(answer)
