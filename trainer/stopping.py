"""How a run ends: on request, at a step boundary, with a code that scripts can read."""

from __future__ import annotations

import os
import signal
from enum import IntEnum
from types import FrameType

REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


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


class StopRequest:
    """A flag that signals set, and that the step carries to all processes.

    SIGTERM, SIGUSR1, SIGUSR2 and a first SIGINT ask for a stop at the next step boundary; a second SIGINT ends the
    process at once.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.process = os.getpid()  # a forked child inherits the handlers, and has no say

    def install(self) -> None:
        """Handle the signals from here on."""
        for number in REQUESTS:
            signal.signal(number, self.receive)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note a signal."""
        if os.getpid() != self.process:
            os._exit(128 + number)
        if number == signal.SIGINT and self.received == "SIGINT":
            os._exit(Outcome.KILLED)
        self.received = signal.Signals(number).name

    def __call__(self) -> bool:
        """Tell whether this process was asked to stop."""
        return self.received is not None
