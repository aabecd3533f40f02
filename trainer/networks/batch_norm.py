"""Batch normalisation whose running statistics do not depend on who computed what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm2d(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) over (n, c, h, w), with frozen running statistics.

    In training it normalises with the statistics of the micro-batch and leaves the running ones alone: it writes its
    batch mean and unbiased variance where `BatchStatistics` told it to. In evaluation it uses the running ones.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum = momentum
        self.eps = eps
        self.batch: tuple[Tensor, Tensor] | None = None  # mean and variance of the passes since the last restart
        self.statistics: BatchStatistics | None = None  # that `batch` is a part of
        self.passes = 0
        self.counts = True  # False: passes leave no trace
        self.repeats = False  # a pass that counted is computed again (checkpointing.py)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of x."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        # A penalty's extra pass: normalised like any other, but it must not count twice in the running statistics.
        if not self.counts:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        mean, var = self.batch or (None, None)
        if self.repeats:
            # As many tensors as the first time, for autograd, but not those.
            mean, var = (None if batch is None else torch.zeros_like(batch) for batch in (mean, var))
            return F.batch_norm(x, mean, var, self.weight, self.bias, True, 0.0, self.eps)
        self.passes += 1
        if self.statistics is not None:
            self.statistics.forget()
        # A momentum of 1/k makes the k-th pass's update a cumulative average: the first one overwrites.
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, 1 / self.passes, self.eps)


class ConditionalBatchNorm2d(nn.Module):
    """BatchNorm whose gain and bias depend on a condition (Dumoulin et al. 2017; de Vries et al. 2017).

    They are 1 + A c and B c. With a one-hot class as condition these are a gain and a bias for each class; BigGAN's
    condition is a class embedding beside a part of z (Brock et al. 2019, appendix B). Without a condition (dimension 0)
    it is plain BatchNorm.
    """

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        # With a condition, gain and bias come from there.
        self.normalise = BatchNorm2d(channels, affine=condition_dim == 0)
        if condition_dim:
            self.gain = nn.Linear(condition_dim, channels, bias=False)
            self.shift = nn.Linear(condition_dim, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Normalise x (n, c, h, w) and modulate it by a condition (n, condition_dim)."""
        x = self.normalise(x)
        if condition is None:
            return x
        with torch.autocast(x.device.type, enabled=False):  # in bf16, 1 + a small gain would be 1
            condition = condition.to(torch.promote_types(condition.dtype, torch.float32))
            # As one product: its backward pass is half of that of two.
            gain, shift = F.linear(condition, torch.cat([self.gain.weight, self.shift.weight])).chunk(2, 1)
        modulated: Tensor = x * (1 + gain)[:, :, None, None] + shift[:, :, None, None]
        return modulated.to(x.dtype)


class BatchStatistics:
    """The batch statistics of all BatchNorm layers of a network, as one flat tensor of their type.

    Layout: each layer's mean, then its variance, in the order of `network.modules()`.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.layers = [module for module in network.modules() if isinstance(module, BatchNorm2d)]
        dtype = self.layers[0].running_mean.dtype if self.layers else None
        numel = sum(2 * len(layer.running_mean) for layer in self.layers)
        self.flat = torch.zeros(numel, device=device, dtype=dtype)
        self.forgotten = False
        for layer, batch in zip(self.layers, self.views(self.flat), strict=True):
            layer.batch, layer.statistics = batch, self

    def views(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's (mean, variance) inside a tensor of this layout."""
        sizes = [len(layer.running_mean) for layer in self.layers for _ in range(2)]
        parts = flat.split(sizes) if sizes else ()
        return list(zip(parts[::2], parts[1::2], strict=True))

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
        """Move the running statistics towards the mean over the micro-batches, once per optimizer step.

        What is not finite does not count: it comes from an fp16 overflow, whose optimizer step is skipped too.
        """
        if not self.layers:
            return
        running = [buffer for layer in self.layers for buffer in (layer.running_mean, layer.running_var)]
        new = torch.where(flat.abs() < torch.inf, flat, torch.cat(running)).split([len(buffer) for buffer in running])
        torch._foreach_lerp_(running, new, [layer.momentum for layer in self.layers for _ in range(2)])

    @torch.no_grad()
    def adopt(self) -> None:
        """Make the average over the passes since the restart the running statistics."""
        for layer, (mean, var) in zip(self.layers, self.views(self.flat), strict=True):
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(var)
