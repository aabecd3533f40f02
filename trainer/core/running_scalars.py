"""The scalars that later steps read: running means, ADA's p. They are part of the state, and live on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

RunningScalars = dict[str, Tensor]
"""float32 scalars by name; the host never waits for one."""


@contextmanager
def finite_only(scalars: RunningScalars) -> Iterator[None]:
    """Undo what becomes of a scalar inside if it is not finite, as after an fp16 overflow in a forward pass."""
    before = {name: value.clone() for name, value in scalars.items()}
    yield
    for name, value in scalars.items():
        # On the device, without asking the host, which would wait for it.
        value.copy_(torch.where(value.abs() < torch.inf, value, before[name]))
