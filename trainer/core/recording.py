"""What the host adds to a step: numbers that follow from the images seen, and actions that no CUDA graph can hold.

Where a step is recorded as CUDA graphs (trainer/gan/recorded_step.py), a number becomes a tensor that the host fills
before each replay, and an action is done between two graphs. Elsewhere a number is a number, and an action is done at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor


class Recorder(Protocol):
    """Records a step."""

    def number(self, compute: Callable[[int], float], images_seen: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor () that holds, in each replay, what `compute` makes of the images seen there."""

    def between_graphs(self, act: Callable[[int], object], images_seen: int) -> None:
        """Let each replay do this here, with the images seen there."""


# Of this thread: the pretended ranks of bench/gpu_ranks.py are threads.
_RECORDER: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def recorded_by(recorder: Recorder) -> Iterator[None]:
    """Record what is done inside."""
    token = _RECORDER.set(recorder)
    try:
        yield
    finally:
        _RECORDER.reset(token)


def number(compute: Callable[[int], float], images_seen: int, dtype: torch.dtype = torch.float32) -> Tensor | float:
    """Return a number that is a function of the images seen.

    Args:
        compute: the function, on the host.
        images_seen: when the update began.
        dtype: of the tensor that stands for it in a graph. In an operation with a float32 tensor Python's own number
            is rounded to float32, so that a float32 one gives the same bits.
    """
    recorder = _RECORDER.get()
    return compute(images_seen) if recorder is None else recorder.number(compute, images_seen, dtype)


def between_graphs(act: Callable[[int], object], images_seen: int = 0) -> None:
    """Do what no graph can hold: it is given the images seen, returns nothing that is read, and writes in place."""
    recorder = _RECORDER.get()
    if recorder is None:
        act(images_seen)
    else:
        recorder.between_graphs(act, images_seen)
