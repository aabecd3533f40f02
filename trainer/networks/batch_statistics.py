"""Running statistics of layers that do not depend on who computed what: BatchNorm's, and StyleGAN3's magnitudes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MeasuringLayer(nn.Module, ABC):
    """A layer that measures its inputs in training, and has running averages of what it measured.

    A forward pass leaves the running averages alone: it writes what it measures into `batch`, where `BatchStatistics`
    told it to.
    """

    running: tuple[str, ...]
    """Names of the buffers with the running averages, each of one dimension, all of one type."""
    of_weights = False
    """The running averages belong to the weights, and go with their moving average; else they are measured anew for
    averaged weights."""

    def __init__(self) -> None:
        super().__init__()
        self.batch: tuple[Tensor, ...] | None = None  # averages over the passes since the last restart
        self.statistics: BatchStatistics | None = None  # that `batch` is a part of
        self.passes = 0
        self.counts = True  # False: passes leave no trace
        self.repeats = False  # a pass that counted is computed again (checkpointing.py)

    @abstractmethod
    def weight_of_batch(self, images: int) -> float:
        """Return the weight of an update of so many pictures in the running averages."""

    def begin_pass(self) -> None:
        """Count a pass, whose weight in `batch` is one over the number of passes; the first one overwrites."""
        self.passes += 1
        if self.statistics is not None:
            self.statistics.forget()

    def buffers_of_running(self) -> list[Tensor]:
        """Return the running averages."""
        return [self.get_buffer(name) for name in self.running]


class BatchStatistics:
    """What all measuring layers of a network have measured, as one flat tensor of their type.

    Layout: for each layer, in the order of `network.modules()`, what becomes each of its running averages.

    Args:
        network: of the layers.
        device: of the tensor.
        images: generated or judged in an update.
    """

    def __init__(self, network: nn.Module, device: torch.device, images: int = 1) -> None:
        self.layers = [module for module in network.modules() if isinstance(module, MeasuringLayer)]
        self.images = images
        dtype = self.running[0].dtype if self.layers else None
        self.flat = torch.zeros(sum(len(buffer) for buffer in self.running), device=device, dtype=dtype)
        self.forgotten = False
        for layer, batch in zip(self.layers, self.views(self.flat), strict=True):
            layer.batch, layer.statistics = batch, self

    @property
    def running(self) -> list[Tensor]:
        """The running averages of all layers."""
        return [buffer for layer in self.layers for buffer in layer.buffers_of_running()]

    def views(self, flat: Tensor) -> list[tuple[Tensor, ...]]:
        """Return what each layer has measured inside a tensor of this layout."""
        running = self.running
        parts = iter(flat.split([len(buffer) for buffer in running]) if running else ())
        return [tuple(next(parts) for _ in layer.running) for layer in self.layers]

    def restart(self) -> None:
        """Forget the passes so far: the next one overwrites."""
        for layer in self.layers:
            layer.passes = 0
        self.forgotten = False

    def forget(self) -> None:
        """Zero what the passes before the restart left, all layers at once; each layer says so before it writes."""
        if not self.forgotten:
            # They are overwritten now, but for what is not finite: 0 * NaN is NaN. Autograd keeps them unread.
            self.flat.data.zero_()
            self.forgotten = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let passes through the network leave no trace: those that a penalty makes besides."""
        for layer in self.layers:
            layer.counts = False
        try:
            yield
        finally:
            for layer in self.layers:
                layer.counts = True

    @torch.no_grad()
    def update_running(self, flat: Tensor) -> None:
        """Move the running averages towards the mean over the micro-batches, once per optimizer step.

        What is not finite does not count: it comes from an fp16 overflow, whose optimizer step is skipped too.
        """
        if not self.layers:
            return
        running = self.running
        new = torch.where(flat.abs() < torch.inf, flat, torch.cat(running)).split([len(buffer) for buffer in running])
        weights = [layer.weight_of_batch(self.images) for layer in self.layers for _ in layer.running]
        torch._foreach_lerp_(running, new, weights)

    @property
    def wants_standing(self) -> bool:
        """Tell whether averaged weights need statistics that are measured for them."""
        return any(not layer.of_weights for layer in self.layers)

    @torch.no_grad()
    def adopt(self) -> None:
        """Make the averages over the passes since the restart the running ones, but of those that go with weights."""
        for layer, batch in zip(self.layers, self.views(self.flat), strict=True):
            if not layer.of_weights:
                torch._foreach_copy_(layer.buffers_of_running(), batch)
