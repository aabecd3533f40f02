"""The second derivative of convolutions as ordinary convolutions.

A gradient penalty differentiates D's backward pass. torch's own formula for that computes the gradient with respect to
a weight by a convolution whose kernel is as large as the feature map, and one for each group of channels. But a
convolution is bilinear: its backward pass is a convolution of the output's gradient with the weight, and one with the
input, and so are their derivatives. Each of them is one call here, whatever the groups, with kernels of the weight's
size.

Let y = x * w, and let A and B be the gradients with respect to the two results of its backward pass, x̄ and w̄. Their
inner product with these is <A * w, ȳ> + <x * B, ȳ>, and the gradients are those of these two convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.library import _scoped_library

aten = torch.ops.aten
# By device: registered for `Autograd` itself, the kernel would replace torch's, and torch warns of that.
KEYS = "AutogradCPU", "AutogradCUDA", "AutogradMeta"
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Of input, weight and bias; None where it is not asked for."""


class ConvolutionBackward(torch.autograd.Function):
    """aten::convolution_backward, with a derivative of its own."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, *rest: Any) -> Gradients:
        """Compute the gradients; `rest` is stride, padding, dilation, transposed, output padding, groups and mask."""
        ctx.save_for_backward(grad, x, weight)
        ctx.geometry = rest[:-1]
        ctx.set_materialize_grads(False)
        with torch._C._AutoDispatchBelowAutograd():  # else it would call itself
            gradients: Gradients = aten.convolution_backward(grad, x, weight, bias_sizes, *rest)
        return gradients

    @staticmethod
    def backward(ctx: Any, *of_results: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to the output's gradient, the input and the weight."""
        grad, x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = of_results
        wanted = ctx.needs_input_grad
        terms = []
        second_x = second_weight = None
        if of_x is not None:
            if wanted[0]:
                terms.append(aten.convolution(of_x, weight, None, *ctx.geometry))
            if wanted[2]:
                second_weight = differentiate(grad, of_x, weight, ctx.geometry, (False, True, False))[1]
        if of_weight is not None:
            if wanted[0]:
                terms.append(aten.convolution(x, of_weight, None, *ctx.geometry))
            if wanted[1]:
                second_x = differentiate(grad, x, of_weight, ctx.geometry, (True, False, False))[0]
        if of_bias is not None and wanted[0]:
            terms.append(of_bias.view(1, -1, *(1 for _ in grad.shape[2:])).expand_as(grad))
        return added(terms), second_x, second_weight, *(None for _ in wanted[3:])


def differentiate(grad: Tensor, x: Tensor, weight: Tensor, geometry: Any, mask: tuple[bool, bool, bool]) -> Gradients:
    """Return the gradients of a convolution without bias that the mask asks for."""
    gradients: Gradients = aten.convolution_backward(grad, x, weight, None, *geometry, mask)
    return gradients


def added(terms: list[Tensor]) -> Tensor | None:
    """Return the sum of parts of a gradient, None of none; Python's own sum would first add 0."""
    return reduce(torch.add, terms) if terms else None


@contextmanager
def ordinary_double_backward() -> Iterator[None]:
    """Let backward passes of convolutions inside be differentiable by ordinary convolutions.

    It matters where a backward pass is itself recorded (`create_graph=True`), and costs nothing elsewhere: networks
    and backward passes outside are torch's own.
    """
    with _scoped_library("aten", "IMPL") as library:
        for key in KEYS:
            library.impl("convolution_backward", ConvolutionBackward.apply, key)
        yield
