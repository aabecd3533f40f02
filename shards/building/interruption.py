"""Ctrl-C, SIGTERM and SIGHUP end a build between two steps.

The handlers only set a flag. An exception raised inside a library (Pillow, SQLite) may be caught there and turned into
another error, such as a damaged picture.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from command_line.printable import printable
from command_line.signals import signals_to_handle
from shards.errors import DataError

INTERRUPTED = 75  # exit code EX_TEMPFAIL: the same command with --resume goes on
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class BuildStopped(Exception):
    """The build cannot go on, and can be resumed: the message says why it stopped."""


class Interruption:
    """Remembers that a signal asked the build to end; a second Ctrl-C or SIGTERM ends the process at once.

    A second SIGHUP does not: when a terminal closes, the kernel sends one and the shell another.
    """

    signalled = False

    def on_signal(self, signum: int, frame: object) -> None:
        """Remember the first signal: the handler of all SIGNALS."""
        self.signalled = True
        if signum != signal.SIGHUP:
            signal.signal(signum, signal.SIG_DFL)

    def check_before(self, tell: Callable[[int], None]) -> Callable[[int], None]:
        """Return a function that calls `tell`, but raises BuildStopped once there was a signal."""

        def check_and_tell(number: int) -> None:
            if self.signalled:
                raise BuildStopped("interrupted")
            tell(number)

        return check_and_tell


def run_interruptible(command: str, act: Callable[[Interruption], None], kept: str) -> int:
    """Run a command that can be interrupted and resumed, and return its exit code.

    Args:
        command: its name, before each message.
        act: does the work.
        kept: what a message says of what is done, after the reason why it stopped.
    """
    try:
        with interruptible() as interruption:
            act(interruption)
        return 0
    except DataError as error:
        print(f"{command}: {printable(error)}", file=sys.stderr)
        return 2
    except (BuildStopped, KeyboardInterrupt) as error:
        print(f"{command}: {str(error) or 'interrupted'}; {kept}", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Handle the signals until the end of the `with` block."""
    interruption = Interruption()
    before = {signum: signal.signal(signum, interruption.on_signal) for signum in signals_to_handle(SIGNALS)}
    try:
        yield interruption
    finally:
        for signum, handler in before.items():
            # A closing terminal's second SIGHUP may arrive while the process ends: it must not change the exit code.
            interrupted = interruption.signalled and signum == signal.SIGHUP
            signal.signal(signum, signal.SIG_IGN if interrupted else handler)
