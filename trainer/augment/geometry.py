"""Geometric transformations of ADA: homogeneous matrices, and one warp at doubled resolution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.augment.bilinear import sample_bilinear
from trainer.augment.wavelets import OVERHANG, downsampling_matrix, upsampling_matrix

Rows = tuple[tuple[Tensor | float, ...], ...]
"""The rows of one matrix for each picture: of numbers, and of tensors (n,)."""


@cache
def constant_row(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Float[Tensor, " k"]:
    """Return numbers as a tensor, which is made once."""
    return torch.tensor(values, device=device, dtype=dtype)


def product(matrices: Sequence[Rows]) -> Float[Tensor, "n k k"]:
    """Return the product of matrices of the same size; all of them are laid out by one operation."""
    entries = [entry for rows in matrices for row in rows for entry in row]
    like = next(entry for entry in entries if isinstance(entry, Tensor))
    values = tuple({float(entry) for entry in entries if not isinstance(entry, Tensor)})
    row = constant_row(tuple(sorted(values)), like.device, like.dtype)
    numbers = dict(zip(sorted(values), row[:, None].expand(-1, len(like)).unbind(), strict=True))
    stacked = torch.stack([entry if isinstance(entry, Tensor) else numbers[entry] for entry in entries], -1)
    return reduce(torch.matmul, stacked.view(len(like), len(matrices), len(matrices[0]), -1).unbind(1))


def translation(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Rows:
    """Move by x to the right and by y downwards."""
    return (1, 0, x), (0, 1, y), (0, 0, 1)


def scaling(x: Tensor | float, y: Tensor | float) -> Rows:
    """Stretch about the centre."""
    return (x, 0, 0), (0, y, 0), (0, 0, 1)


def rotation(angle: Float[Tensor, " n"]) -> Rows:
    """Turn about the centre, from the x axis (right) to the y axis (down)."""
    c, s = angle.cos(), angle.sin()
    return (c, -s, 0), (s, c, 0), (0, 0, 1)


@cache
def sampled_places(size: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " 2*size+10"]:
    """Return the places that downsampling takes, in pixels from the centre."""
    return torch.arange(-5, 2 * size + 5, device=device, dtype=dtype) / 2 - (size - 1) / 2


def warp_images(x: Float[Tensor, "n c h w"], inverse: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n c h w"]:
    """Transform each picture, given where each of its pixels comes from (appendix B, "orthogonal lowpass filters").

    Coordinates are pixels from the centre. The picture is upsampled with sym6, sampled bilinearly and downsampled.
    Where the reference pads by as much as the batch at hand needs, which its host must read, points that fall outside
    are mirrored back here: no bound on the transformation, no padding, static shapes.
    """
    height, width = x.shape[-2:]
    rows, columns = (sampled_places(size, x.device, x.dtype) for size in (height, width))
    of_x, of_y, shift = inverse[:, :2, :, None, None].unbind(2)
    points = of_x * columns + of_y * rows[:, None] + shift  # x and y of each, (n, 2, i, j)
    if height == width:
        points = mirror_back(points, width)
    else:
        points = torch.cat([mirror_back(points[:, :1], width), mirror_back(points[:, 1:], height)], 1)
    # Between the two the resolution is doubled, so that a rotated picture has no jagged edges.
    up, down = (
        [matrix(size, x.device, x.dtype) for size in (height, width)]
        for matrix in (upsampling_matrix, downsampling_matrix)
    )
    return down[0] @ sample_bilinear(up[0] @ x @ up[1].T, points.permute(0, 2, 3, 1)) @ down[1].T


def mirror_back(points: Tensor, size: int) -> Tensor:
    """Return places along an axis of `size` pixels, from its centre, mirrored into what is upsampled: [-1, 1]."""
    edge = (size - 1) / 2
    reach = edge + OVERHANG
    # Period 4 * edge: there and back once. Further out the image goes on as in two facing mirrors.
    mirrored = edge - ((points + edge).remainder(4 * edge) - 2 * edge).abs()
    return torch.where(points.abs() <= reach, points, mirrored) / reach
