"""The scalars of each step, brought to the host without making the device wait."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

Row = tuple[int, dict[str, float]]
"""Images seen, and the scalars of the step that ended there."""


class AsyncScalars:
    """On a GPU scalars arrive one step late, while the next step runs; on a CPU at once.

    Every process sees the same scalars after the same step, so what they decide from them they decide together.
    """

    def __init__(self, device: torch.device) -> None:
        self.lag = 1 if device.type == "cuda" else 0
        self.waiting: deque[tuple[int, list[str], Tensor, torch.cuda.Event | None]] = deque()

    def push(self, images_seen: int, scalars: dict[str, Tensor], drain: bool) -> list[Row]:
        """Take in a step's scalars and return those that are due; with `drain` wait for all of them."""
        # One transfer for all scalars of the step.
        values = torch.stack([value.float() for value in scalars.values()])
        copied = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)  # into pinned memory, on the current stream
            # Such a copy may be read only once the device has passed this event.
            copied = torch.cuda.Event()
            copied.record()
        self.waiting.append((images_seen, list(scalars), values, copied))
        return self.arrived(0 if drain else self.lag)

    def arrived(self, lag: int = 0) -> list[Row]:
        """Wait for all but the last `lag` steps' scalars, and return them."""
        rows = []
        while len(self.waiting) > lag:
            seen, names, values, copied = self.waiting.popleft()
            if copied:
                copied.synchronize()  # this copy only: the next step is queued already, and keeps the device busy
            rows.append((seen, dict(zip(names, values.tolist(), strict=True))))
        return rows

    def clear(self) -> None:
        """Forget what has not arrived."""
        self.waiting.clear()
