"""Layer normalisation of feature maps, whose second derivative is a few operations.

torch differentiates the backward pass of its own group normalisation as a long chain of elementary operations, but it
has a closed form. Let y be (x - mean) r for each sample, with r one over the standard deviation. With g the gradient
with respect to y, that with respect to x is P g = r (g - mean(g) - y mean(g y)). P is symmetric, so that <v, P g> has
the derivative P v by g; by x it is -r (y mean(v P g) + mean(g y) P v + mean(v y) P g).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainer.networks.convolution import added

aten = torch.ops.aten
EVERY = [True, True, True]
ONLY_INPUT = [True, False, False]


def inner_products(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of the products of each sample's entries (n, 1, 1, 1), in b's precision."""
    order = sorted(range(1, b.ndim), key=b.stride, reverse=True)  # as they lie in memory
    a, b = (t.to(b.dtype).permute(0, *order).flatten(1) for t in (a, b))
    return (a[:, None] @ b[:, :, None])[..., None]


def per_channel(x: Tensor) -> Tensor:
    """Return the sum over samples and places (c,)."""
    return x.sum((0, 2, 3))


def laid_out(x: Tensor, like: Tensor) -> Tensor:
    """Return x in the memory format that torch normalises `like` in."""
    channels_last = like.device.type == "cpu" and like.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def gradients(grad: Tensor, x: Tensor, statistics: Any, gain: Tensor | None, mask: list[bool]) -> Any:
    """Return the gradients with respect to input, gains and biases that the mask asks for."""
    n, c, h, w = x.shape
    return aten.native_group_norm_backward(laid_out(grad, x), x, *statistics, gain, n, c, h * w, 1, mask)


class Normalise(torch.autograd.Function):
    """aten::native_group_norm for one group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Normalise each sample."""
        n, c, h, w = x.shape
        y, *statistics = aten.native_group_norm(x, gain, bias, n, c, h * w, 1, eps)
        ctx.save_for_backward(x, gain, *statistics)
        normalised: Tensor = y
        return normalised

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Return the gradients with respect to input, gains and biases."""
        return *NormaliseBackward.apply(grad, *ctx.saved_tensors), None  # type: ignore[no-untyped-call]


class NormaliseBackward(torch.autograd.Function):
    """aten::native_group_norm_backward for one group, with a derivative of its own."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, gain: Tensor, *statistics: Tensor) -> Any:
        """Compute the gradients."""
        found = gradients(grad, x, statistics, gain, EVERY)
        ctx.save_for_backward(grad, x, gain, found[0], *statistics)
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_x: Tensor | None, of_gain: Tensor | None, of_bias: Tensor | None) -> Any:
        """Return the gradients with respect to the output's gradient, the input and the gains."""
        grad, x, gain, grad_x, *statistics = ctx.saved_tensors
        centre, r = (value.view(-1, 1, 1, 1) for value in statistics)
        y, gain = (x - centre) * r, gain[:, None, None]
        of_grad: list[Tensor] = []
        of_input: list[Tensor] = []
        second_gain = None
        if of_x is not None:
            projected = gradients(of_x, x, statistics, None, ONLY_INPUT)[0]
            along = torch.addcmul(y * inner_products(of_x, grad_x), inner_products(grad * gain, y), projected)
            along = torch.addcmul(along, inner_products(of_x, y), grad_x)
            of_input.append(along * (r * (-1 / x[0].numel())))
            of_grad.append(gain * projected)
            second_gain = per_channel(grad * projected)
        if of_gain is not None:
            of_gain = of_gain[:, None, None]
            of_input.append(gradients(of_gain * grad, x, statistics, None, ONLY_INPUT)[0])
            of_grad.append(of_gain * y)
        if of_bias is not None:
            of_grad.append(of_bias[:, None, None].expand_as(grad))
        return added(of_grad), added(of_input), second_gain, None, None


class LayerNorm(nn.GroupNorm):
    """Layer normalisation over channels and places (Ba et al. 2016), with gain and bias for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each sample of x (n, c, h, w)."""
        # Under autocast torch does it in float32 on GPUs, and in x's precision, with statistics in float32, on CPUs.
        x = x.float() if x.is_cuda and torch.is_autocast_enabled("cuda") else x
        normalised: Tensor = Normalise.apply(laid_out(x, x), self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return normalised
