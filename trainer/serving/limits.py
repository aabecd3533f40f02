"""What a server of pictures does at most, so that no number of requests takes its machine down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

SEEDS = 1_000_000  # from 0 on
MOST_PICTURES = 256  # of one answer
MOST_PIXELS = 1 << 24  # of one answer
MOST_WAITING_PICTURES = 2048
MOST_WAITING_PIXELS = 1 << 26  # 200 MB as bytes
MOST_REQUESTS = 512  # under way at once
RETRY_AFTER_S = 1


class TooMuch(Exception):
    """One request wants more than any may; the message says how much that is."""


class Unknown(Exception):
    """There is nothing of the name that a request gives."""


class Busy(Exception):
    """There is too much to do now: the same request may be answered later."""


class Waiting:
    """Counts the pictures that wait to be painted."""

    def __init__(self) -> None:
        self.pictures = self.pixels = 0
        self.lock = threading.Lock()

    @contextmanager
    def admit(self, pictures: int, pixels_each: int) -> Iterator[None]:
        """Count pictures as waiting while the context lasts.

        Raises:
            TooMuch: no request may have so many.
            Busy: too many wait already.
        """
        pixels = pictures * pixels_each
        if pictures > MOST_PICTURES or pixels > MOST_PIXELS:
            most = min(MOST_PICTURES, MOST_PIXELS // pixels_each)
            raise TooMuch(f"an answer has at most {most} of these pictures, but this one would have {pictures}")
        with self.lock:
            if self.pictures + pictures > MOST_WAITING_PICTURES or self.pixels + pixels > MOST_WAITING_PIXELS:
                raise Busy(f"{self.pictures} pictures wait to be painted")
            self.pictures += pictures
            self.pixels += pixels
        try:
            yield
        finally:
            with self.lock:
                self.pictures -= pictures
                self.pixels -= pixels
