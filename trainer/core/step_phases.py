"""Where the time of a step goes: phases that the code which trains names, measured on the host or on the GPU."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal, Protocol

import torch

Phase = Literal["data", "draws", "forward_backward", "exchange", "optimizer"]
PHASES: tuple[Phase, ...] = ("data", "draws", "forward_backward", "exchange", "optimizer")

# On a GPU a step has about twelve events of 4 µs each: measured no more often than this, they cost below 0.1 %.
SPACING_S = 0.05

NOTHING = nullcontext()

Mark = tuple[Phase, Any]
"""A phase, and the clock's stamp where it begins; it lasts until the next mark."""


class Clock(Protocol):
    """Takes stamps without waiting for anything."""

    def stamp(self) -> Any:
        """Return a stamp of now."""

    def ready(self, stamp: Any) -> bool:
        """Tell whether this stamp, and those before it, can be read."""

    def seconds(self, start: Any, end: Any) -> float:
        """Return the seconds between two stamps that are ready."""


class HostClock:
    """The clock of this process."""

    def stamp(self) -> float:
        """Return the time."""
        return time.perf_counter()

    def ready(self, stamp: float) -> bool:
        """Tell that it can be read."""
        return True

    def seconds(self, start: float, end: float) -> float:
        """Return the difference."""
        return end - start


class DeviceClock:
    """Events on the GPU's current stream: it passes them when it has done what was queued before.

    So a phase takes as long as the GPU works for it, or waits for it. The host never waits for an event.
    """

    def stamp(self) -> torch.cuda.Event:
        """Queue an event."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def ready(self, stamp: torch.cuda.Event) -> bool:
        """Tell whether the GPU has passed it."""
        return bool(stamp.query())

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Return what the GPU measured."""
        return float(start.elapsed_time(end)) / 1000  # milliseconds


def clock_of(device: torch.device) -> Clock:
    """Return the clock by which steps on a device are measured."""
    return DeviceClock() if device.type == "cuda" else HostClock()


class StepMarks:
    """The marks of one step; a phase inside another one interrupts it."""

    def __init__(self, stamp: Callable[[], Any]) -> None:
        self.stamp, self.within, self.marks = stamp, list[Phase](), list[Mark]()

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Count what is inside as a phase."""
        self.within.append(name)
        self.marks.append((name, self.stamp()))
        yield
        self.within.pop()
        self.marks.append((self.within[-1] if self.within else name, self.stamp()))


# By context: threads that prepare micro-batches, and autograd's on a GPU, have none, and are not measured.
MEASURED: ContextVar[StepMarks | None] = ContextVar("MEASURED", default=None)


def phase(name: Phase) -> AbstractContextManager[None]:
    """Count what is inside as a phase of the step, if this thread measures it."""
    marks = MEASURED.get()
    # In a CUDA graph an event would be a part of the graph: what is captured stays in the phase around it.
    if marks is None or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        return NOTHING
    return marks.phase(name)


class StepTimes:
    """The shares of the phases in the time between two logged steps.

    The phases are measured in some of the steps. What the steps of the interval did not need is "other": saving, sample
    grids, the collapse monitor, logging.

    Args:
        clock: of the device that trains.
        now: seconds of the host.
    """

    def __init__(self, clock: Clock, now: Callable[[], float] = time.perf_counter) -> None:
        self.clock, self.now = clock, now
        self.waiting: deque[list[Mark]] = deque()
        self.since: float | None = None  # the interval's beginning: the start of the first step is none of its time
        self.due_at = 0.0
        self.clear()

    def clear(self) -> None:
        """Begin an interval."""
        self.steps, self.measured = 0, 0
        self.spent = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count a step, and measure it if that is due."""
        now = self.now()
        self.since = now if self.since is None else self.since
        self.steps += 1
        if now < self.due_at:
            yield
            return
        self.due_at = now + SPACING_S
        marks = StepMarks(self.clock.stamp)
        token = MEASURED.set(marks)
        try:
            with marks.phase("forward_backward"):
                yield
            self.waiting.append(marks.marks)
        finally:
            MEASURED.reset(token)

    def collect(self) -> None:
        """Add up the measured steps that the device has done."""
        while self.waiting and self.clock.ready(self.waiting[0][-1][1]):
            marks = self.waiting.popleft()
            self.measured += 1
            for (name, start), (_, end) in itertools.pairwise(marks):
                self.spent[name] += self.clock.seconds(start, end)

    def shares(self) -> dict[str, float]:
        """Return the share of each phase since the last shares, and begin anew; nothing before a step was measured."""
        self.collect()
        now = self.now()
        if self.since is None or not self.measured or now <= self.since:
            return {}
        scale = self.steps / self.measured / (now - self.since)
        shares = {name: spent * scale for name, spent in self.spent.items()}
        # Above 1 when long steps were measured and short ones not, or when the GPU is behind the host.
        whole = max(1.0, sum(shares.values()))
        found = {f"time/{name}": round(share / whole, 4) for name, share in shares.items()}
        found["time/other"] = round(max(0.0, 1 - sum(shares.values()) / whole), 4)
        self.since = now
        self.clear()
        return found
