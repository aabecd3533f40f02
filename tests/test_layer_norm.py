"""Layer normalisation: torch's own, to the bit where it is differentiated once, and its second derivative."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from trainer.core.randomness import philox
from trainer.networks.layer_norm import LayerNorm

SHAPE = (3, 4, 5, 2)
MEMORY = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def tensors(dtype: torch.dtype, memory: str = "contiguous") -> tuple[LayerNorm, Tensor]:
    """Return a layer and what it is to normalise."""
    layer = LayerNorm(SHAPE[1]).to(dtype)
    for name, parameter in layer.named_parameters():
        parameter.data = torch.from_numpy(philox(name).standard_normal(parameter.shape)).to(dtype)
    x = torch.from_numpy(philox("x").normal(0.5, 2, SHAPE)).to(dtype)
    return layer, x.contiguous(memory_format=MEMORY[memory]).requires_grad_()


def torchs(layer: LayerNorm, x: Tensor) -> Tensor:
    """Return what torch makes of it."""
    return F.group_norm(x, 1, layer.weight, layer.bias, layer.eps)


def test_first_and_second_derivatives_are_those_of_finite_differences() -> None:
    layer, x = tensors(torch.float64)

    def normalise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))
        return y

    assert gradcheck(normalise, (x, layer.weight, layer.bias))
    assert gradgradcheck(normalise, (x, layer.weight, layer.bias))


@pytest.mark.parametrize("memory", MEMORY)
def test_output_and_first_derivatives_are_torchs_to_the_bit(memory: str) -> None:
    layer, x = tensors(torch.float32, memory)
    inputs = [x, layer.weight, layer.bias]
    expected, found = torchs(layer, x), layer(x)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    pairs = zip(*(torch.autograd.grad(y.sin().sum(), inputs) for y in (expected, found)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("memory", MEMORY)
def test_second_derivatives_are_torchs(memory: str) -> None:
    """But for rounding: the tolerance is relative to the largest entry of each gradient."""
    layer, x = tensors(torch.float32, memory)
    both = []
    for y in (torchs(layer, x), layer(x)):
        (slope,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        both.append(torch.autograd.grad(slope.square().sum(), [x, layer.weight, layer.bias]))
    for expected, found in zip(*both, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_a_third_derivative_is_refused() -> None:
    layer, x = tensors(torch.float64)
    (slope,) = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


def test_under_autocast_it_is_torchs() -> None:
    """And gradients of a penalty come in the input's precision, as near to torch's as that is."""
    layer, x = tensors(torch.float32)
    both = []
    for normalise in (layer, lambda x: torchs(layer, x)):
        with torch.autocast("cpu", torch.bfloat16):
            lower = x.bfloat16()
            y = normalise(lower)
        (slope,) = torch.autograd.grad(y.float().sin().sum(), lower, create_graph=True)
        both.append((y, *torch.autograd.grad(slope.float().square().sum(), [x, layer.weight])))
    assert torch.equal(both[0][0], both[1][0])
    for found, expected in zip(*both, strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * float(expected.detach().abs().max()))
