"""Where an exchange runs while this process computes on: a stream of its own on a GPU, a thread on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Protocol

import torch


class Lane(Protocol):
    """Runs actions one after the other, each after what was computed before `start`."""

    def start(self, act: Callable[[], None]) -> None:
        """Begin an action."""

    def wait(self) -> None:
        """Let what is computed from here on see the results of all actions."""


class StreamLane:
    """A stream beside the current one: the host does not wait for it."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def start(self, act: Callable[[], None]) -> None:
        """Queue an action behind what is queued now."""
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            act()

    def wait(self) -> None:
        """Let what is queued from here on wait for the actions."""
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)


class ThreadLane:
    """A thread: gloo blocks the one that calls it."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "exchange")
        self.actions: list[Future[None]] = []

    def start(self, act: Callable[[], None]) -> None:
        """Begin an action."""
        self.actions.append(self.thread.submit(act))

    def wait(self) -> None:
        """Wait for the actions.

        Raises:
            RuntimeError: of a collective: another process is gone.
        """
        actions, self.actions = self.actions, []
        for action in actions:
            action.result()


@cache  # one for all networks: all ranks must call their collectives in one order
def lane_of(device: torch.device) -> Lane:
    """Return the lane of a device."""
    return StreamLane(device) if device.type == "cuda" else ThreadLane()
