"""Bilinear sampling whose gradients are the same in every run, on GPUs without sorting.

The gradient with respect to a picture adds up what comes from all points that were sampled near a pixel. torch's kernel
for it adds in whatever order its threads come by; torch's deterministic ways to do it sort all points first. Here the
terms are integers of 64 bits, whose sum is the same in any order, and so the fast kernel is as good as the sorted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LEAST_EXPONENT = -900
"""Units of gradients below 2 to this power are taken as if these were as large: 1 / unit is to be finite."""


def sample_bilinear(x: Float[Tensor, "n c h w"], grid: Float[Tensor, "n i j 2"]) -> Float[Tensor, "n c i j"]:
    """Sample pictures at (x, y) in [-1, 1], where -1 and 1 are the centres of the outermost pixels.

    The grid has no gradient on GPUs with deterministic algorithms.
    """
    if wants_integers(x.device):
        return sample_in_any_order(x, grid)
    sampled: Tensor = F.grid_sample(x, grid, align_corners=True)
    return sampled


def wants_integers(device: torch.device) -> bool:
    """Tell whether the order of a gradient's additions would else be left to chance, and is not to be."""
    return device.type == "cuda" and torch.are_deterministic_algorithms_enabled()


def sample_in_any_order(x: Float[Tensor, "n c h w"], grid: Float[Tensor, "n i j 2"]) -> Float[Tensor, "n c i j"]:
    """Do the same, with gradients of any order with respect to x that do not depend on the order of additions."""
    sampled: Tensor = Sample.apply(x, grid)  # type: ignore[no-untyped-call]  # torch's is not
    return sampled


class Sample(torch.autograd.Function):
    """Sampling: linear in the picture, so that its gradient is the adjoint, whose gradient is sampling again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        """Sample."""
        ctx.save_for_backward(grid)
        ctx.sides = x.shape[-2:]
        sampled: Tensor = F.grid_sample(x, grid, align_corners=True)
        return sampled

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Spread."""
        return Spread.apply(grad, *ctx.saved_tensors, ctx.sides), None  # type: ignore[no-untyped-call]


class Spread(torch.autograd.Function):
    """The adjoint of sampling."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, grid: Tensor, sides: tuple[int, int]) -> Tensor:
        """Spread."""
        ctx.save_for_backward(grid)
        return spread(y, grid, sides)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Sample."""
        return Sample.apply(grad, *ctx.saved_tensors), None, None  # type: ignore[no-untyped-call]


def spread(
    y: Float[Tensor, "n c i j"], grid: Float[Tensor, "n i j 2"], sides: tuple[int, int]
) -> Float[Tensor, "n c h w"]:
    """Add each value to the four pixels around its point, by their weights.

    Each term is rounded to a multiple of a unit, so small that no sum overflows 63 bits though all points fell on one
    pixel: with P points at most 8 P 2^-63 of the picture's largest value, 2^-41 at 256 pixels. Float32 rounds a sum of
    that size to 2^-24. A picture with a value that is not finite has no finite result.
    """
    (n, c), (h, w) = y.shape[:2], sides
    column, row = ((grid[..., k] + 1) / 2 * (side - 1) for k, side in ((0, w), (1, h)))
    # At the last column or row the pair is the last two, and all of the weight falls on the second.
    left, top = column.floor().clamp(0, w - 2), row.floor().clamp(0, h - 2)
    right, down = (column - left).double(), (row - top).double()
    corner = (top * w + left).long()
    unit = unit_of(y)
    scaled = y.double() / unit
    total = torch.zeros(n, c, h * w, device=y.device, dtype=torch.int64)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        weight = (right if dx else 1 - right) * (down if dy else 1 - down)
        index = (corner + dy * w + dx).flatten(1)[:, None].expand(-1, c, -1)
        with any_order():
            total.scatter_add_(2, index, (scaled * weight[:, None]).round_().long().flatten(2))
    return (total.view(n, c, h, w) * unit).to(y.dtype)


def unit_of(y: Float[Tensor, "n c i j"]) -> Float[Tensor, "n 1 1 1"]:
    """Return for each picture a power of two; sums of all its values are below 2^62 of them. NaN: not finite."""
    largest = y.abs().amax((1, 2, 3), keepdim=True).double()
    bits = 62 - y[0, 0].numel().bit_length()
    exponent = torch.frexp(largest).exponent.clamp(min=LEAST_EXPONENT) - bits
    return exponent.double().exp2() + (largest - largest)  # the difference is 0 or NaN


@contextmanager
def any_order() -> Iterator[None]:
    """Let torch add in any order inside: only for integers."""
    wanted = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(wanted)
