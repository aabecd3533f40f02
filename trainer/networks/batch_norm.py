"""Batch normalisation whose running statistics do not depend on who computed what."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.networks.batch_statistics import MeasuringLayer


class BatchNorm2d(MeasuringLayer):
    """Batch normalisation (Ioffe and Szegedy 2015) over (n, c, h, w), with frozen running statistics.

    In training it normalises with the statistics of the micro-batch and leaves the running ones alone: it writes its
    batch mean and unbiased variance where `BatchStatistics` told it to. In evaluation it uses the running ones.
    """

    running = "running_mean", "running_var"
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

    def weight_of_batch(self, images: int) -> float:
        """Return the momentum, whatever the pictures of an update."""
        return self.momentum

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
        self.begin_pass()
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
