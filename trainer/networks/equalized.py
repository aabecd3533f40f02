"""Layers with an equalised learning rate (Karras et al. 2018, arXiv:1710.10196, §4.1).

Weights are stored as N(0, 1) and scaled to He's standard deviation each time they are used, so that Adam, whose steps
do not depend on the scale of gradients, moves all layers at the same relative speed.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def scaled_lrelu(x: Tensor) -> Tensor:
    """Apply LeakyReLU with slope 0.2, times sqrt(2): it keeps the variance roughly as it was."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class Linear(nn.Module):
    """Linear layer; its weight is to begin as N(0, 1) / rate.

    Args:
        inputs: dimensions of what comes in.
        outputs: dimensions of what goes out.
        rate: factor on the learning rates of weight and bias; mapping networks have 0.01 (Karras et al. 2019).
    """

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # He's deviation is sqrt(2 / inputs); `scaled_lrelu` has the sqrt(2).
        self.gain, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """Map x linearly."""
        return F.linear(x, self.weight * self.gain, self.bias if self.rate == 1 else self.bias * self.rate)


class Conv2d(nn.Module):
    """Convolution whose weight is to begin as N(0, 1)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = 1 / math.sqrt(inputs * kernel**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o p q"]:
        """Convolve x."""
        return F.conv2d(x, self.weight * self.gain, self.bias, self.stride, self.padding)
