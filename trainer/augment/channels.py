"""Colours of pictures with and without alpha, so that one transformation of colours serves all.

A colour c in [-1, 1] with the alpha a in [0, 1] is stored as p = a (c + 1) - 1. With q = a c = p + 1 - a, an affine map
c -> M c + t of the colours is q -> M q + a t: nothing is divided by alpha, and what is transparent stays so. Without
alpha a is 1, and q is c.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

NOTHING = -1.0
"""The value of all channels of RGBA where there is nothing; other pictures are grey, 0, there, as in the papers."""


def split_alpha(x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n k h w"], Float[Tensor, "n 1 h w"] | None]:
    """Return q and a of pictures of 1, 3 or 4 channels; None: a is 1."""
    if x.shape[1] != 4:
        return x, None
    alpha = (x[:, 3:] + 1) / 2
    return x[:, :3] + 1 - alpha, alpha


def weigh(colour: Tensor, alpha: Tensor | None) -> Tensor:
    """Return a colour, or a change of it, times alpha."""
    return colour if alpha is None else colour * alpha


def join_alpha(q: Float[Tensor, "n k h w"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return pictures of the colours q, with the alpha of x where that has one."""
    if x.shape[1] != 4:
        return q
    return torch.cat([q + (x[:, 3:] - 1) / 2, x[:, 3:]], 1)


def keep_inside(x: Float[Tensor, "n c h w"], inside: Tensor) -> Float[Tensor, "n c h w"]:
    """Leave nothing of pictures outside of `inside`: grey, or transparency where there is alpha."""
    if x.shape[1] != 4:
        return x * inside
    return torch.where(inside, x, NOTHING)
