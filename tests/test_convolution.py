"""The second derivative of convolutions: finite differences, torch's own, and what it is made of."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from bench.launches import META, Launches
from trainer.core.randomness import philox
from trainer.networks.convolution import ordinary_double_backward


@dataclass(frozen=True)
class Case:
    """A convolution; the weight has `inputs` first where it is transposed."""

    inputs: int = 4
    outputs: int = 6
    kernel: int = 3
    side: int = 5
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = True
    transposed: bool = False
    output_padding: int = 0

    def tensors(
        self,
        dtype: torch.dtype = torch.float64,
        memory: torch.memory_format = torch.contiguous_format,
        device: torch.device | None = None,
    ) -> list[Tensor]:
        """Return input, weight and bias, which require gradients."""
        first, second = (self.inputs, self.outputs) if self.transposed else (self.outputs, self.inputs)
        weight = (first, second // self.groups, self.kernel, self.kernel)
        shapes: list[tuple[int, ...]] = [(2, self.inputs, self.side, self.side), weight]
        shapes += [(self.outputs,)] if self.bias else []
        drawn = (torch.from_numpy(philox("convolution", *shape).standard_normal(shape)) for shape in shapes)
        return [
            t.to(device, dtype, memory_format=memory if t.ndim == 4 else torch.contiguous_format).requires_grad_()
            for t in drawn
        ]

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve x."""
        if self.transposed:
            return F.conv_transpose2d(
                x, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
            )
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


CASES = {
    "3 x 3": Case(padding=1),
    "1 x 1, no bias": Case(kernel=1, bias=False),
    "stride 2": Case(kernel=4, side=6, stride=2, padding=1),
    "stride 2, a place left over": Case(side=6, stride=2),
    "groups": Case(padding=1, groups=2),
    "depthwise": Case(inputs=4, outputs=4, kernel=4, side=4, groups=4, bias=False),
    "dilation": Case(dilation=2, padding=1),
    "transposed": Case(kernel=4, side=3, stride=2, padding=1, transposed=True),
    "transposed, groups, output padding": Case(
        side=3, stride=2, padding=1, groups=2, transposed=True, output_padding=1
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_first_and_second_derivatives_are_those_of_finite_differences(name: str) -> None:
    """With gradients against all of input, weight and bias, in float64."""
    case = CASES[name]
    with ordinary_double_backward():
        assert gradcheck(case, case.tensors())
        assert gradgradcheck(case, case.tensors())


def test_third_derivatives_are_those_of_finite_differences() -> None:
    case = Case(padding=1, groups=2, side=3)
    with ordinary_double_backward():

        def slope(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return torch.autograd.grad(case(x, weight, bias).sin().sum(), x, create_graph=True)[0]

        assert gradgradcheck(slope, case.tensors())


def penalty_gradients(case: Case, tensors: list[Tensor], formula: AbstractContextManager[None]) -> list[Tensor]:
    """Return the gradients of a gradient penalty with respect to input, weight and bias."""
    y = case(*tensors)
    with formula:
        slopes = torch.autograd.grad(y.sin().sum(), tensors, create_graph=True)
    total = torch.stack([slope.square().sum() for slope in slopes]).sum()
    return list(torch.autograd.grad(total + y.square().sum(), tensors))


MEMORY = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_are_torchs(name: str, dtype: torch.dtype, tolerance: float, memory: str) -> None:
    """But for rounding: the tolerance is relative to the largest entry of each gradient."""
    case = CASES[name]
    torchs = penalty_gradients(case, case.tensors(dtype, MEMORY[memory]), nullcontext())
    ours = penalty_gradients(case, case.tensors(dtype, MEMORY[memory]), ordinary_double_backward())
    for expected, found in zip(torchs, ours, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_first_derivatives_are_torchs_to_the_bit() -> None:
    for case in CASES.values():
        tensors = case.tensors(torch.float32)
        torchs = torch.autograd.grad(case(*tensors).sin().sum(), tensors)
        with ordinary_double_backward():
            ours = torch.autograd.grad(case(*tensors).sin().sum(), tensors, create_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(torchs, ours, strict=True))


def test_torchs_own_formula_is_back_afterwards() -> None:
    """Whatever ends the block."""
    with pytest.raises(ZeroDivisionError), ordinary_double_backward():
        _ = 1 / 0
    case = CASES["depthwise"]
    with Launches() as counted:
        penalty_gradients(case, case.tensors(device=META), nullcontext())
    assert len(counted.kernels) > 1


@pytest.mark.parametrize("name", CASES)
def test_a_second_derivative_has_the_first_ones_kernels(name: str) -> None:
    """Each convolution has the shape of the weight and its groups: one call for all groups, no larger kernel."""
    case = CASES[name]
    tensors = case.tensors(device=META)
    with Launches() as counted:
        penalty_gradients(case, tensors, ordinary_double_backward())
    assert set(counted.kernels) == {(tuple(tensors[1].shape), case.groups)}
    # Forward, backward; two convolutions and four gradients of the second one; and of y's own use nothing but y.
    assert counted.kernels.total() <= 8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_as_it_does_elsewhere(dtype: torch.dtype) -> None:
    """Convolution in the lower precision, a weight cast once, gradients in float32."""
    case = Case(padding=1)
    gradients = []
    for formula in (nullcontext(), ordinary_double_backward()):
        tensors = case.tensors(torch.float32)
        with torch.autocast("cpu", dtype):
            y = case(*tensors)
        assert y.dtype == dtype
        with formula:
            (slope,) = torch.autograd.grad(y.float().sum(), tensors[0], create_graph=True)
        gradients.append(torch.autograd.grad(slope.square().sum() + y.float().square().sum(), tensors))
    for expected, found in zip(*gradients, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * float(expected.abs().max()))


def test_a_compiled_function_is_differentiated_once_inside() -> None:
    """By torch.compile's ahead-of-time autograd; its graphs have no second derivative, here as elsewhere."""
    case = Case(padding=1)
    compiled = torch.compile(lambda *tensors: case(*tensors).sin().sum(), backend="aot_eager")
    tensors = case.tensors(torch.float32)
    plain = torch.autograd.grad(case(*tensors).sin().sum(), tensors)
    with ordinary_double_backward():
        found = torch.autograd.grad(compiled(*tensors), tensors)
    for expected, gradient in zip(plain, found, strict=True):
        torch.testing.assert_close(gradient, expected)
