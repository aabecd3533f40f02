"""How a run ends: on request, at a step boundary, with a code that scripts can read."""

from __future__ import annotations

import faulthandler
import os
import signal
from enum import IntEnum
from types import FrameType

from command_line.signals import signals_to_handle

# By people, schedulers and shells; SIGHUP comes when a terminal is closed, SIGXCPU at a limit of CPU time, SIGALRM from
# what limits time otherwise, SIGPWR when power fails or a container is halted.
REQUESTS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGXCPU, signal.SIGALRM, signal.SIGPWR),
)


class Outcome(IntEnum):
    """How a run ended; the value is the exit code."""

    FINISHED = 0
    """All pictures were seen, and the state is durable."""
    FAILED = 1
    """Something broke; the last durable checkpoint serves."""
    REFUSED = 2
    """The input was bad, and nothing was done."""
    INTERRUPTED = 75
    """Asked to stop: the state is durable, and the same command goes on (EX_TEMPFAIL)."""
    KILLED = 130
    """Asked twice by SIGINT: stopped at once; the last durable checkpoint serves."""


class Failed(Exception):
    """The run cannot go on; the message says why."""


class Diverged(Failed):
    """It cannot go on with its settings, however often it is started again."""


class OutOfMemory(Failed):
    """It needs more memory than there is, and would again."""


class StopRequest:
    r"""A flag that signals set, and that the step carries to all processes.

    Each of REQUESTS asks for a stop at the next step boundary; a second SIGINT ends the process at once. SIGQUIT
    (Ctrl-\\) writes the stacks of all threads, whatever they are stuck in, and ends the process at once.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.process = os.getpid()  # a forked child inherits the handlers, and has no say

    def install(self) -> None:
        """Handle the signals from here on."""
        for number in signals_to_handle(REQUESTS):
            signal.signal(number, self.receive)
        # chain: afterwards the signal does what it always does, and ends the process.
        faulthandler.register(signal.SIGQUIT, file=2, all_threads=True, chain=True)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note a signal."""
        if os.getpid() != self.process:
            os._exit(128 + number)
        if number == signal.SIGINT and self.received == "SIGINT":
            # An exception would wait for threads, and for collectives that the others may never enter.
            os._exit(Outcome.KILLED)
        self.received = signal.Signals(number).name

    def __call__(self) -> bool:
        """Tell whether this process was asked to stop."""
        return self.received is not None
