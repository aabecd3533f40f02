"""What is due by seconds: rank 0 looks at its clock, and the scalar `stop` of a step tells all ranks.

Each rank's step asks, once a micro-batch, whether it should stop, and the mean of the answers reaches every rank with
the losses: no further exchange is needed. An answer is a number: 1 asks for a stop, and rank 0 has two others, so much
smaller that their means cannot be taken for one another. A step tells one thing; what else is due is told by the next
one. On a GPU it is read one step later, by all ranks after the same step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from enum import Enum

from trainer.config.config import Config
from trainer.gan.async_scalars import Row


class Signal(Enum):
    """What a step tells all ranks, by the number that a micro-batch answers."""

    STOP = 1.0
    SAVE = 2.0**-20
    SAMPLE = 2.0**-40


def read_signal(mean: float) -> Signal | None:
    """Return what a step tells by the mean over its micro-batches, of which there are fewer than 2²⁰."""
    # If k of M micro-batches answer a number, the mean is above the next smaller number, and not above this one.
    if mean > Signal.SAVE.value:
        return Signal.STOP
    if mean > Signal.SAMPLE.value:
        return Signal.SAVE
    return Signal.SAMPLE if mean > 0 else None


def read_signals(rows: Iterable[Row]) -> set[Signal]:
    """Return what some steps tell."""
    return {signal for _, scalars in rows if (signal := read_signal(scalars["stop"]))}


class Timer:
    """Tells whether so many seconds have passed since it was made or restarted; None: it never does."""

    def __init__(self, every_s: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self.every_s, self.now = every_s, now
        self.restart()

    def restart(self) -> None:
        """Begin again."""
        self.since = self.now()

    def is_due(self) -> bool:
        """Tell whether the time has passed."""
        return self.every_s is not None and self.now() - self.since >= self.every_s


class Clock:
    """Answers the steps of a rank: whether it was asked to stop, and on rank 0 what is due by seconds.

    Args:
        config: of the run.
        stop: tells whether this process was asked to stop.
        main: this is rank 0.
        now: the clock, in seconds.
    """

    def __init__(
        self, config: Config, stop: Callable[[], bool], main: bool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.stop = stop
        every = {Signal.SAVE: config.checkpoint_every_s, Signal.SAMPLE: config.sample_every_s}
        self.timers = {signal: Timer(every_s, now) for signal, every_s in every.items()} if main else {}

    def __call__(self) -> float:
        """Return the number that a micro-batch answers."""
        if self.stop():
            return Signal.STOP.value
        return next((signal.value for signal, timer in self.timers.items() if timer.is_due()), 0.0)

    def restart(self, done: Iterable[Signal]) -> None:
        """Count the seconds anew for what was done."""
        for signal in done:
            if signal in self.timers:
                self.timers[signal].restart()
