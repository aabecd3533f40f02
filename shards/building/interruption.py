"""Ctrl-C, SIGTERM and SIGHUP end a build between two steps: never inside a library that would make of them another
error."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from command_line.signals import answerable

SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Stopped(Exception):
    """The build cannot go on, and can be resumed: the message says why it stopped."""


class Interruption:
    """Notes that the build is to end; a second Ctrl-C or SIGTERM ends the process at once.

    A second SIGHUP does not: a terminal that closes sends one, and its shell another.
    """

    noted = False

    def note(self, signum: int, frame: object) -> None:
        """Note the first signal; what signals handlers do."""
        self.noted = True
        if signum != signal.SIGHUP:
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
    """Note the signals from here on."""
    interruption = Interruption()
    before = {signum: signal.signal(signum, interruption.note) for signum in answerable(SIGNALS)}
    try:
        yield interruption
    finally:
        for signum, handler in before.items():
            # A terminal's second SIGHUP can come while the interrupted process ends: it must not change the exit code.
            interrupted = interruption.noted and signum == signal.SIGHUP
            signal.signal(signum, signal.SIG_IGN if interrupted else handler)
