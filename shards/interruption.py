"""Ctrl-C and SIGTERM end a build between two steps: never inside a library that would turn them into another error."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """The build cannot go on, and can be resumed: the message says why it stopped."""


class Interruption:
    """Notes that the build is to end; a second signal ends the process at once."""

    noted = False

    def note(self, signum: int, frame: object) -> None:
        """Note the first signal; what signals handlers do."""
        self.noted = True
        signal.signal(signum, signal.SIG_DFL)

    def between(self, tell: Callable[[int], None]) -> Callable[[int], None]:
        """Return `tell` with a look for signals; it raises Stopped after one."""

        def look_and_tell(number: int) -> None:
            if self.noted:
                raise Stopped("interrupted")
            tell(number)

        return look_and_tell


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Note Ctrl-C and SIGTERM from here on."""
    interruption = Interruption()
    before = {signum: signal.signal(signum, interruption.note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
