"""Threads that read from remote storages, and end with the process.

`ThreadPoolExecutor` would finish all that is queued before the process can end, however long a server is gone.
"""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
END_WAIT_S = 20.0  # longer than a silent request takes to fail


class Threads:
    """Threads that carry out what is submitted, first come, first served.

    Args:
        number: of threads; they start when they are needed.
        name: of the threads.
    """

    def __init__(self, number: int, name: str) -> None:
        self.number, self.name = number, name
        self.stop = threading.Event()
        self.tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.starting = threading.Lock()

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Carry something out in one of the threads."""
        future: Future[T] = Future()
        self.run(lambda: resolve(future, task))
        return future

    def run(self, task: Callable[[], None]) -> None:
        """Carry out something whose result nobody waits for."""
        with self.starting:
            if not self.threads:
                # A thread that is inside a library when the interpreter ends may take the process down with it.
                atexit.register(self.close)
            if len(self.threads) < self.number:
                self.threads.append(threading.Thread(target=self.work, name=self.name, daemon=True))
                self.threads[-1].start()
        self.tasks.put(task)

    def work(self) -> None:
        """Carry out tasks until the end."""
        while (task := self.tasks.get()) is not None and not self.stop.is_set():
            task()

    def close(self) -> None:
        """End the threads; what they wait for is given up."""
        self.stop.set()
        for _ in self.threads:
            self.tasks.put(None)
        for thread in self.threads:
            thread.join(END_WAIT_S)
        with suppress(AttributeError):  # at the very end of the process
            atexit.unregister(self.close)


def resolve(future: Future[T], task: Callable[[], T]) -> None:
    """Carry out a task, and give its result or its error to whoever waits."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(task())
    except BaseException as error:
        future.set_exception(error)
