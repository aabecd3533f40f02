"""A stand-in for CUDA graphs on a CPU: the ATen operations of what is captured, done again on the same tensors.

As with a graph, capturing does nothing to the state, and a replay sees nothing of Python but the memory: a number that
is no tensor stays what it was, and a tensor that was made anew after the capture is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")
Operation = tuple[Any, Any, Any, list[Tensor]]
"""Operator, its arguments, those by name, and the tensors that it returned."""


class Operations(TorchDispatchMode):
    """Keeps operations, with the very tensors that they took and gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not
        self.kept: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        assert func.overloadpacket is not torch.ops.aten._local_scalar_dense, "the host would wait for the device"
        if not func.is_view:  # a view is there already, and shows what will be written
            self.kept.append((func, args, kwargs or {}, [t for t in tree_leaves(out) if isinstance(t, Tensor)]))
        return out

    @torch.no_grad()
    def again(self) -> None:
        """Do them again; each writes where its results were."""
        for func, args, kwargs, out in self.kept:
            new = [t for t in tree_leaves(func(*args, **kwargs)) if isinstance(t, Tensor)]
            for old, tensor in zip(out, new, strict=True):
                if old is not tensor and old.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr():
                    old.copy_(tensor)


class RecordedOperations:
    """Graphs for trainer/gan/recorded_step.py.

    Args:
        state: the tensors that a step writes and a later one reads.
    """

    def __init__(self, state: Sequence[Tensor]) -> None:
        self.state, self.captured, self.replays = state, 0, 0

    def run_beside(self, act: Callable[[], T]) -> T:
        """Do something."""
        return act()

    @contextmanager
    def capture(self) -> Iterator[Callable[[], None]]:
        """Capture what is done inside, and undo it."""
        operations, before = Operations(), [t.detach().clone() for t in self.state]

        def replay() -> None:
            self.replays += 1
            operations.again()

        try:
            with operations:
                yield replay
            self.captured += 1
        finally:
            for tensor, value in zip(self.state, before, strict=True):
                tensor.data.copy_(value)  # as if it had never been written: autograd may still go back to it
