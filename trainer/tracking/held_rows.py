"""Rows of metrics that wait for columns which are still being measured, in the order in which they must be written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Protocol

Columns = Mapping[str, float]


class Later(Protocol):
    """Columns that are there some time later, such as a Future's."""

    def done(self) -> bool:
        """Tell whether they are there."""

    def result(self) -> Columns:
        """Wait for them, and return them; OSError if they will never be there."""


class HeldRows:
    """Writes rows as soon as all of their columns and all rows before them are there.

    Args:
        write: takes a row.
    """

    def __init__(self, write: Callable[[Columns], None]) -> None:
        self.write = write
        self.lock = Lock()  # the thread that trains writes what is there; that of a checkpoint waits for it
        self.rows = deque[tuple[Columns, Sequence[Later]]]()

    def add(self, row: Columns, later: Sequence[Later]) -> None:
        """Take in a row; its `images_seen` are not below those of the row before."""
        self.rows.append((row, later))

    def write_known(self) -> None:
        """Write the rows that wait for nothing. Returns at once."""
        if self.lock.acquire(blocking=False):  # else another thread is writing them
            try:
                while self.rows and all(one.done() for one in self.rows[0][1]):
                    self.write_first()
            finally:
                self.lock.release()

    def write_until(self, images_seen: float) -> None:
        """Wait for the rows up to `images_seen`, and write them.

        Raises:
            OSError: a column will never be there.
        """
        with self.lock:
            while self.rows and self.rows[0][0]["images_seen"] <= images_seen:
                self.write_first()

    def write_first(self) -> None:
        """Write the first row."""
        row, later = self.rows[0]
        columns = dict(row)
        for one in later:
            columns |= one.result()
        self.write(columns)
        self.rows.popleft()
