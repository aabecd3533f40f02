"""Gradients, batch statistics and scalars of one network in one flat tensor, so that one exchange moves them all."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainer.networks.batch_statistics import BatchStatistics


class FlatLayout:
    """Where a network's named scalars, batch statistics and gradients lie in a flat tensor of its weights' type.

    That is float32 in training, and float64 where gradients are tested. Each gradient has the strides of its parameter,
    as fused optimizers want it. They come last, in the order of the layers: a backward pass completes the buffer from
    its end. `with_gradients=False` leaves the gradients out, for a reduction that carries them itself. `images` are
    those of an update, by which running averages count.
    """

    def __init__(
        self, network: nn.Module, scalars: tuple[str, ...], with_gradients: bool = True, images: int = 1
    ) -> None:
        self.network = network
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.device, self.dtype = self.parameters[0].device, self.parameters[0].dtype
        # Measuring layers write into this object's tensor during forward passes; `finish` copies it from there.
        self.statistics = BatchStatistics(network, self.device, images)
        self.scalars = scalars
        self.with_gradients = with_gradients
        self.head_numel = len(scalars) + self.statistics.flat.numel()
        self.numel = self.head_numel + (sum(p.numel() for p in self.parameters) if with_gradients else 0)

    def gradient_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield where each parameter's gradient begins and ends."""
        stop = self.head_numel
        for parameter in self.parameters:
            start, stop = stop, stop + parameter.numel()
            yield start, stop

    def padded_numel(self, multiple: int) -> int:
        """Return the length of a buffer that can be cut into so many pieces of the same length."""
        return -(-self.numel // multiple) * multiple


class FlatBuffer:
    """One flat tensor of a layout, and views into it; its length is a multiple of `multiple`."""

    def __init__(self, layout: FlatLayout, multiple: int = 1) -> None:
        self.layout = layout
        self.flat = torch.zeros(layout.padded_numel(multiple), device=layout.device, dtype=layout.dtype)
        self.scalars = self.flat[: len(layout.scalars)]
        self.statistics = self.flat[len(layout.scalars) : layout.head_numel]
        self.views: list[Tensor] = []
        if layout.with_gradients:
            for p, (start, _) in zip(layout.parameters, layout.gradient_ranges(), strict=True):
                # channels_last weights have channels_last gradients, else the optimizer would copy them at each step.
                self.views.append(torch.as_strided(self.flat, p.size(), p.stride(), start))

    def attach(self) -> None:
        """Let this buffer's gradients be the `.grad` of the network's parameters."""
        # Views are empty where DDP carries the gradients: then `.grad` is left alone.
        for parameter, view in zip(self.layout.parameters, self.views, strict=False):
            parameter.grad = view

    def begin(self) -> None:
        """Start a micro-batch: zero gradients, and backward passes accumulate here."""
        self.flat.zero_()
        self.attach()
        self.layout.statistics.restart()

    def record(self, **scalars: Tensor | float) -> None:
        """Write named scalars."""
        for name, value in scalars.items():
            self.scalars[self.layout.scalars.index(name)] = value.detach() if isinstance(value, Tensor) else value

    def finish(self) -> None:
        """End a micro-batch: keep the batch statistics of its passes."""
        self.statistics.copy_(self.layout.statistics.flat)

    def named_scalars(self) -> dict[str, Tensor]:
        """Return copies of the scalars: the buffer itself is written again in the next update."""
        return dict(zip(self.layout.scalars, self.scalars.clone(), strict=True))
