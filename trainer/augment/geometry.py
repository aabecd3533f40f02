"""Geometric transformations of ADA: homogeneous matrices, and one warp at doubled resolution."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from trainer.augment.wavelets import OVERHANG, downsampling_matrix, upsampling_matrix


def batch_matrix(*rows: tuple[Tensor | float, ...]) -> Float[Tensor, "n k k"]:
    """Return one matrix for each picture, from numbers and from tensors (n,)."""
    entries = [e for row in rows for e in row]
    like = next(e for e in entries if isinstance(e, Tensor))
    # Each number once, all entries in one stack: host and device have little else to do for these.
    numbers = {e: torch.full_like(like, e) for e in {e for e in entries if not isinstance(e, Tensor)}}
    stacked = torch.stack([e if isinstance(e, Tensor) else numbers[e] for e in entries], -1)
    return stacked.view(*stacked.shape[:-1], len(rows), -1)


def translation_matrix(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Float[Tensor, "n 3 3"]:
    """Move by x to the right and by y downwards."""
    return batch_matrix((1, 0, x), (0, 1, y), (0, 0, 1))


def scaling_matrix(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Float[Tensor, "n 3 3"]:
    """Stretch about the centre."""
    return batch_matrix((x, 0, 0), (0, y, 0), (0, 0, 1))


def rotation_matrix(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 3 3"]:
    """Turn about the centre, from the x axis (right) to the y axis (down)."""
    c, s = angle.cos(), angle.sin()
    return batch_matrix((c, -s, 0), (s, c, 0), (0, 0, 1))


def warp_images(x: Float[Tensor, "n c s s"], inverse: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n c s s"]:
    """Transform each picture, given where each of its pixels comes from (appendix B, "orthogonal lowpass filters").

    Coordinates are pixels from the centre. The picture is upsampled with sym6, sampled bilinearly and downsampled.
    Where the reference pads by as much as the batch at hand needs, which its host must read, points that fall outside
    are mirrored back here: no bound on the transformation, no padding, static shapes.
    """
    size = x.shape[-1]
    edge = (size - 1) / 2
    reach = edge + OVERHANG
    place = torch.arange(-5, 2 * size + 5, device=x.device, dtype=x.dtype) / 2 - edge  # what downsampling takes
    across, along = place[None, None, :], place[None, :, None]
    a, b, tx, c, d, ty = inverse[:, :2].flatten(1)[:, :, None, None].unbind(1)
    points = torch.stack([a * across + b * along + tx, c * across + d * along + ty], -1)
    # Period 4 * edge: there and back once. Further out the image goes on as in two facing mirrors.
    mirrored = edge - ((points + edge).remainder(4 * edge) - 2 * edge).abs()
    points = torch.where(points.abs() <= reach, points, mirrored)
    # Between the two the resolution is doubled, so that a rotated picture has no jagged edges.
    up, down = upsampling_matrix(size, x.device, x.dtype), downsampling_matrix(size, x.device, x.dtype)
    return down @ sample_bilinear(up @ x @ up.T, points / reach) @ down.T


def sample_bilinear(x: Float[Tensor, "n c h w"], grid: Float[Tensor, "n i j 2"]) -> Float[Tensor, "n c i j"]:
    """Sample pictures at (x, y), where -1 and 1 are the centres of the outermost pixels."""
    # grid_sample adds up its gradients in whatever order the threads come by.
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return bilinear_by_gathers(x, grid)
    sampled: Tensor = F.grid_sample(x, grid, align_corners=True)
    return sampled


def bilinear_by_gathers(x: Float[Tensor, "n c h w"], grid: Float[Tensor, "n i j 2"]) -> Float[Tensor, "n c i j"]:
    """Do the same with operations whose backward passes are deterministic on CUDA, as grid_sample's is not."""
    h, w = x.shape[-2:]
    column, row = (grid[..., 0] + 1) / 2 * (w - 1), (grid[..., 1] + 1) / 2 * (h - 1)
    # At the last column or row the pair is the last two, and all of the weight falls on the second.
    left, top = column.floor().clamp(0, w - 2), row.floor().clamp(0, h - 2)
    right, down = column - left, row - top
    corner = (top * w + left).long()

    def pixel(dx: int, dy: int) -> Tensor:
        index = (corner + dy * w + dx).flatten(1)[:, None].expand(-1, x.shape[1], -1)
        return x.flatten(2).gather(2, index).view(*x.shape[:2], *grid.shape[1:3])

    across, along = right[:, None], down[:, None]
    upper = torch.lerp(pixel(0, 0), pixel(1, 0), across)
    return torch.lerp(upper, torch.lerp(pixel(0, 1), pixel(1, 1), across), along)
