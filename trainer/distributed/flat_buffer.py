"""Gradients, batch statistics and scalars of one network in one flat tensor, so that one exchange moves them all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.networks.batch_norm import BatchStatistics


class FlatLayout:
    """Where a network's gradients, batch statistics and named scalars lie in a flat tensor of its weights' type.

    That is float32 in training, and float64 where gradients are tested. Each gradient has the strides of its parameter,
    as fused optimizers want it. `with_gradients=False` leaves the gradients out, for a reduction that carries them
    itself.
    """

    def __init__(self, network: nn.Module, scalars: tuple[str, ...], with_gradients: bool = True) -> None:
        self.network = network
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.device, self.dtype = self.parameters[0].device, self.parameters[0].dtype
        # BatchNorm layers write into this object's tensor during forward passes; `finish` copies it from there.
        self.statistics = BatchStatistics(network, self.device)
        self.scalars = scalars
        self.with_gradients = with_gradients
        self.gradients_numel = sum(p.numel() for p in self.parameters) if with_gradients else 0
        self.numel = self.gradients_numel + self.statistics.flat.numel() + len(scalars)


class FlatBuffer:
    """One flat tensor of a layout, and views into it."""

    def __init__(self, layout: FlatLayout) -> None:
        self.layout = layout
        self.flat = torch.zeros(layout.numel, device=layout.device, dtype=layout.dtype)
        sizes = [layout.gradients_numel, layout.statistics.flat.numel(), len(layout.scalars)]
        self.gradients, self.statistics, self.scalars = self.flat.split(sizes)
        self.views: list[Tensor] = []
        if layout.with_gradients:
            offset = 0
            for p in layout.parameters:
                # channels_last weights have channels_last gradients, else the optimizer would copy them at each step.
                self.views.append(torch.as_strided(self.flat, p.size(), p.stride(), offset))
                offset += p.numel()

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
