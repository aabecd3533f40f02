"""How pictures are decoded: the settings that determine their pixels."""

from __future__ import annotations

from dataclasses import dataclass

from shards.images.fit import Crop, Fit
from shards.images.size import Size


@dataclass(frozen=True)
class Decoding:
    """How pictures are decoded."""

    size: Size
    """Height and width of the result."""
    fit: Fit
    background: tuple[int, int, int]
    """RGB, behind transparent pixels and beside padded pictures; with four channels both are transparent."""
    scaled_decode: int
    """Before filtering, shrink cheaply (JPEG's own scaling, boxes) to at least so many times `size`; 0: never."""
    max_pixels: int
    min_size: int
    channels: int = 3
    """1: grey, 3: RGB, 4: RGBA."""
    crop: Crop = "centre"
    """Which part of a picture is taken with `fit` crop."""
    max_aspect: float | None = None
    """The longer side over the shorter one, at most."""
