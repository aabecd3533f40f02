"""Layers with an equalised learning rate (Karras et al. 2018, arXiv:1710.10196, §4.1).

Weights are stored as N(0, 1) and scaled to He's standard deviation each time they are used, so that Adam, whose steps
do not depend on the scale of gradients, moves all layers at the same relative speed.

LeakyReLU with slope 0.2 times sqrt(2) keeps the variance roughly as it was. As a * lrelu(x) is lrelu(a * x), the factor
is one of the layer before, and costs nothing there: a layer has the factor of its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SQRT2 = math.sqrt(2)
Used = tuple[Tensor, Tensor | None]
"""A layer's weight and bias as they are used."""


class ScaleAll(torch.autograd.Function):
    """Each tensor times a number of its own: one operation for all of them, and one for their gradients."""

    @staticmethod
    def forward(ctx: Any, factors: Sequence[float], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Multiply."""
        ctx.factors = factors
        ctx.set_materialize_grads(False)
        return tuple(torch._foreach_mul(tensors, factors))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Multiply the gradients that there are."""
        there = {k: grad for k, grad in enumerate(grads) if grad is not None}
        scaled = iter(scale_all([ctx.factors[k] for k in there], list(there.values())) if there else ())
        return None, *(next(scaled) if k in there else None for k in range(len(grads)))


def scale_all(factors: Sequence[float], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return each tensor times its factor."""
    products: tuple[Tensor, ...] = ScaleAll.apply(factors, *tensors)  # type: ignore[no-untyped-call]  # torch's is not
    return products


def scaled(*layers: Linear | Conv2d) -> list[Used]:
    """Return weights and biases of layers as they are used, all scaled at once."""
    tensors, factors = [], []
    for layer in layers:
        tensors.append(layer.weight)
        factors.append(layer.gain)
        if layer.bias is not None:
            tensors.append(layer.bias)
            factors.append(layer.bias_gain)
    products = iter(scale_all(factors, tensors))
    return [(next(products), None if layer.bias is None else next(products)) for layer in layers]


def lrelu(x: Tensor) -> Tensor:
    """Apply LeakyReLU with slope 0.2; the sqrt(2) is a factor of the layer before or behind."""
    return F.leaky_relu(x, 0.2)


class Linear(nn.Module):
    """Linear layer; its weight is to begin as N(0, 1) / rate.

    Args:
        inputs: dimensions of what comes in.
        outputs: dimensions of what goes out.
        factor: of the result.
        rate: factor on the learning rates of weight and bias; mapping networks have 0.01 (Karras et al. 2019).
    """

    def __init__(self, inputs: int, outputs: int, factor: float = 1.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # He's deviation is sqrt(2 / inputs); the sqrt(2) is in `factor`, where LeakyReLU follows.
        self.gain, self.bias_gain = factor * rate / math.sqrt(inputs), factor * rate

    def forward(self, x: Float[Tensor, "n i"], used: Used | None = None) -> Float[Tensor, "n o"]:
        """Map x linearly, by weight and bias that are scaled already or are scaled now."""
        weight, bias = used or scaled(self)[0]
        return F.linear(x, weight, bias)


class Conv2d(nn.Module):
    """Convolution whose weight is to begin as N(0, 1); `factor` is one of the result."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain, self.bias_gain = factor / math.sqrt(inputs * kernel**2), factor
        self.stride, self.padding = stride, padding

    def forward(self, x: Float[Tensor, "n i h w"], used: Used | None = None) -> Float[Tensor, "n o p q"]:
        """Convolve x, by weight and bias that are scaled already or are scaled now."""
        weight, bias = used or scaled(self)[0]
        return F.conv2d(x, weight, bias, self.stride, self.padding)
