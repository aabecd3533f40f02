"""Colour transformations of ADA: homogeneous matrices that act on (r, g, b, 1), about the grey axis v."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from trainer.augment.geometry import Rows


def along_and_across(along: Tensor | float, across: Tensor | float) -> Rows:
    """Multiply a colour's grey part, v vᵀ, and the rest of it, I - v vᵀ."""
    # along v vᵀ + across (I - v vᵀ), with v = (1, 1, 1) / sqrt(3): d on the diagonal, e beside it.
    e = (along - across) / 3
    d = across + e
    return (d, e, e, 0), (e, d, e, 0), (e, e, d, 0), (0, 0, 0, 1)


def brightness(b: Float[Tensor, " n"]) -> Rows:
    """Add b to each channel."""
    return (1, 0, 0, b), (0, 1, 0, b), (0, 0, 1, b), (0, 0, 0, 1)


def contrast(c: Float[Tensor, " n"]) -> Rows:
    """Multiply each channel by c."""
    return (c, 0, 0, 0), (0, c, 0, 0), (0, 0, c, 0), (0, 0, 0, 1)


def luma_flip(i: Float[Tensor, " n"]) -> Rows:
    """Negate the grey part where i is 1: a Householder reflection, I - 2 v vᵀ i."""
    return along_and_across(1 - 2 * i, 1)


def saturation(s: Float[Tensor, " n"]) -> Rows:
    """Multiply all but the grey part by s."""
    return along_and_across(1, s)


def hue(angle: Float[Tensor, " n"]) -> Rows:
    """Turn colours about the grey axis (Rodrigues' formula)."""
    # cos I + (1 - cos) v vᵀ + sin [v]x, where [v]x is the matrix of the cross product with v.
    c, s = angle.cos(), angle.sin() / math.sqrt(3)
    e = (1 - c) / 3
    d = c + e
    return (d, e - s, e + s, 0), (e + s, d, e - s, 0), (e - s, e + s, d, 0), (0, 0, 0, 1)
