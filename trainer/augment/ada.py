"""The augmentations of ADA (Karras et al. 2020, arXiv:2006.06676, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trainer.augment import colour
from trainer.augment.base import Augmentation, AugmentSettings
from trainer.augment.channels import join_alpha, keep_inside, split_alpha, weigh
from trainer.augment.geometry import Rows, constant_row, product, rotation, scaling, translation, warp_images
from trainer.augment.wavelets import band_matrices
from trainer.core.randomness import normal

LETTERS = {"b": "blit", "g": "geometry", "c": "colour", "f": "filter", "n": "noise", "o": "cutout"}
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Expected power of a picture in each band: about 1/f."""


def chance_of_each(p: Tensor) -> Tensor:
    """Return the probability of each of two rotations that makes the probability of any of them p."""
    # 1 - (1 - q)² = p, solved for q.
    return 1 - (1 - p).sqrt()


def same(x: Tensor) -> Tensor:
    """Return x."""
    return x


def dense_exp2(x: Tensor) -> Tensor:
    """Return 2 to the power of x, as of a dense tensor: on a CPU its last bit may differ from that of a view."""
    return x.contiguous().exp2()


@dataclass(frozen=True)
class Transformation:
    """One random transformation: what its parameters are drawn from, and which draw leaves the picture alone.

    A parameter is `then`((draw * before - less) * after): most of it is computed for all transformations at once.
    """

    letter: str
    name: str
    law: Literal["uniform", "normal"]
    """Draws (n, width) are uniform in [0, 1) or N(0, 1)."""
    still: float
    """The draw whose parameters leave the picture alone."""
    before: float = 1.0
    less: float = 0.0
    after: float = 1.0
    then: Callable[[Tensor], Tensor] = same
    width: int = 1
    gates: int = 1
    """1, or `width`: each parameter is chosen for itself."""
    chance: Callable[[Tensor], Tensor] = same


TRANSFORMATIONS = (
    Transformation("b", "flip", "uniform", 0, before=2, then=torch.floor),
    Transformation("b", "quarters", "uniform", 0, before=4, then=torch.floor),
    Transformation("b", "shift", "uniform", 0.5, before=2, less=1, after=1 / 8, width=2),
    Transformation("g", "scale", "normal", 0, before=0.2, then=dense_exp2),
    Transformation("g", "turn", "uniform", 0.5, before=2, less=1, after=math.pi, chance=chance_of_each),
    Transformation("g", "stretch", "normal", 0, before=0.2, then=dense_exp2),
    Transformation("g", "turn_again", "uniform", 0.5, before=2, less=1, after=math.pi, chance=chance_of_each),
    Transformation("g", "move", "normal", 0, before=1 / 8, width=2),
    Transformation("c", "brightness", "normal", 0, before=0.2),
    Transformation("c", "contrast", "normal", 0, before=0.5, then=dense_exp2),
    Transformation("c", "luma_flip", "uniform", 0, before=2, then=torch.floor),
    Transformation("c", "hue", "uniform", 0.5, before=2, less=1, after=math.pi),
    Transformation("c", "saturation", "normal", 0, then=torch.exp2),
    Transformation("f", "gains", "normal", 0, then=torch.exp2, width=4, gates=4),
    Transformation("n", "sigma", "normal", 0, before=0.1, then=torch.abs),
    Transformation("o", "centre", "uniform", -1, width=2),  # nothing is cut out around -1
)


def values_of(draws: Float[Tensor, "n w"], drawn: Sequence[Transformation]) -> dict[str, Float[Tensor, "n ..."]]:
    """Return the parameters of transformations by name, from their columns of draws."""

    def columns(name: Literal["before", "less", "after"]) -> Tensor:
        return constant_row(tuple(getattr(t, name) for t in drawn for _ in range(t.width)), draws.device, draws.dtype)

    values = draws * columns("before")
    if any(t.less for t in drawn):
        values = (values - columns("less")) * columns("after")
    columns_of = zip(drawn, values.split([t.width for t in drawn], 1), strict=True)
    return {t.name: t.then(column).squeeze(1) for t, column in columns_of}


class Ada(Augmentation):
    """Each transformation happens to each picture with probability p: blit, geometry, colour, filter, noise, cutout.

    A picture that none happens to is returned to the bit. All of it is computed in float32, or in float64 for
    pictures in float64.
    """

    def __init__(self, settings: AugmentSettings, shape: tuple[int, ...]) -> None:
        super().__init__(settings, shape)
        self.transformations = [t for t in TRANSFORMATIONS if t.letter in settings.pipe]

    @staticmethod
    def problem(settings: AugmentSettings) -> str | None:
        """Return which letter of the pipe is unknown, or that there is none, or None."""
        known = ", ".join(f"{letter} ({name})" for letter, name in LETTERS.items())
        for letter in settings.pipe:
            if letter not in LETTERS:
                return f"augment.pipe has no part {letter!r}; the parts are {known}"
            if settings.pipe.count(letter) > 1:
                return f"augment.pipe names {letter!r} twice"
        return None if settings.pipe else f"augment.pipe is empty; the parts are {known}"

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """Draw gates and values, one column for each, and the field of the noise where there is noise."""
        gates = sum(t.gates for t in self.transformations)
        width = {law: sum(t.width for t in self.transformations if t.law == law) for law in ("uniform", "normal")}
        draws = {
            "gate": torch.from_numpy(rng.random((n, gates), dtype=np.float32)),
            "uniform": torch.from_numpy(rng.random((n, width["uniform"]), dtype=np.float32)),
            "normal": normal(rng, n, width["normal"]),
        }
        if "n" in self.settings.pipe:
            colours = min(self.shape[0], 3)
            draws["noise"] = normal(rng, n, colours, *self.shape[1:])
        return draws

    def parameters(
        self, draws: Mapping[str, Tensor], p: Float[Tensor, ""]
    ) -> tuple[dict[str, Float[Tensor, "n ..."]], Bool[Tensor, " n"]]:
        """Return the parameters by name, neutral where their transformation does not happen, and where any happens."""
        # p stays on the device: each gate is a comparison there, and no branch of the host depends on it.
        shares = [(t.chance, self.settings.colour_share if t.letter == "c" else 1.0) for t in self.transformations]
        chances = {(chance, share): chance(p) * share if share < 1 else chance(p) for chance, share in {*shares}}
        of_each = [chances[key] for key, t in zip(shares, self.transformations, strict=True) for _ in range(t.gates)]
        happens = draws["gate"] < torch.stack(of_each)
        gates = dict(zip(self.transformations, happens.split([t.gates for t in self.transformations], 1), strict=True))
        values: dict[str, Tensor] = {}
        for law in ("uniform", "normal"):
            drawn = [t for t in self.transformations if t.law == law]
            if not drawn:
                continue
            # What draws nothing of its own has the draw that leaves the picture alone: one choice for all of a law.
            chosen = torch.cat([gates[t].expand(-1, t.width) for t in drawn], 1)
            still = constant_row(tuple(t.still for t in drawn for _ in range(t.width)), p.device, draws[law].dtype)
            values |= values_of(torch.where(chosen, draws[law], still), drawn)
        return values, happens.any(1)

    def __call__(
        self, x: Float[Tensor, "n c h w"], draws: Mapping[str, Tensor], p: Float[Tensor, ""]
    ) -> Float[Tensor, "n c h w"]:
        """Transform pictures."""
        pipe = self.settings.pipe
        with torch.autocast(x.device.type, enabled=False):
            # float64 is for tests of gradients by finite differences.
            x = y = x if x.dtype == torch.float64 else x.float()
            draws = {name: tensor.to(x.dtype) for name, tensor in draws.items()}
            t, happens = self.parameters(draws, p)
            if "b" in pipe or "g" in pipe:
                y = warp_images(y, self.inverse(t))
            if "c" in pipe:
                y = transform_colours(y, colour_matrix(t))
            if "f" in pipe:
                y = amplify_bands(y, t["gains"])
            if "n" in pipe:
                y = add_noise(y, t["sigma"][:, None, None, None] * draws["noise"])
            if "o" in pipe:
                y = cut_square(y, t["centre"])
            # A picture that nothing happened to must come back to the bit, whatever the arithmetic above rounds.
            return torch.where(happens[:, None, None, None], y, x)

    def inverse(self, t: Mapping[str, Tensor]) -> Float[Tensor, "n 3 3"]:
        """Return G⁻¹, from where a pixel is to where it comes from: the inverses, that of the first one on the left."""
        chain: list[Rows] = []
        if "b" in self.settings.pipe:
            # The paper turns by minus these angles, here and below, so the inverse turns by them.
            turn = rotation(math.pi / 2 * t["quarters"])
            # Whole pixels: a blit copies them and interpolates nothing.
            x, y = (t["shift"] * self.sides(t["shift"])).round().neg().unbind(1)
            chain += [scaling(1 - 2 * t["flip"], 1), turn, translation(x, y)]
        if "g" in self.settings.pipe:
            x, y = (t["move"] * self.sides(t["move"])).neg().unbind(1)
            smaller = t["scale"].reciprocal()
            chain += [scaling(smaller, smaller), rotation(t["turn"])]
            chain += [scaling(t["stretch"].reciprocal(), t["stretch"]), rotation(t["turn_again"]), translation(x, y)]
        return product(chain)

    def sides(self, like: Tensor) -> Tensor | int:
        """Return width and height, (2,), or their one number."""
        _, height, width = self.shape
        return height if height == width else constant_row((width, height), like.device, like.dtype)


def transform_colours(x: Float[Tensor, "n c h w"], matrix: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n c h w"]:
    """Apply a matrix to the colours; to grey the mean of its rows, as StyleGAN2-ADA's code does."""
    q, alpha = split_alpha(x)
    factors, offset = matrix[:, :3, :3], matrix[:, :3, 3:]
    if x.shape[1] == 1:
        # Hue and saturation turn and stretch about the grey axis: on it they change nothing.
        factors, offset = factors.mean(1, keepdim=True).sum(2, keepdim=True), offset.mean(1, keepdim=True)
    seen = None if alpha is None else alpha.flatten(2)
    return join_alpha((factors @ q.flatten(2) + weigh(offset, seen)).view_as(q), x)


def add_noise(x: Float[Tensor, "n c h w"], noise: Float[Tensor, "n k h w"]) -> Float[Tensor, "n c h w"]:
    """Add noise to the colours, as far as they are seen."""
    q, alpha = split_alpha(x)
    return join_alpha(q + weigh(noise, alpha), x)


def colour_matrix(t: Mapping[str, Tensor]) -> Float[Tensor, "n 4 4"]:
    """Return C, all colour transformations in one: the first one on the right."""
    return product(
        [
            colour.saturation(t["saturation"]),
            colour.hue(t["hue"]),
            colour.luma_flip(t["luma_flip"]),
            colour.contrast(t["contrast"]),
            colour.brightness(t["brightness"]),
        ]
    )


def amplify_bands(x: Float[Tensor, "n c h w"], gains: Float[Tensor, "n 4"]) -> Float[Tensor, "n c h w"]:
    """Amplify four bands of frequencies; each gain comes with a factor on all bands that keeps the expected power."""
    for gain, power in zip(gains.split(1, 1), POWER, strict=True):
        # POWER sums to 1: with one band times g, the expected power is 1 + power (g² - 1).
        gains = gains / (1 + power * (gain.square() - 1)).sqrt()
    height, width = x.shape[-2:]
    rows = torch.einsum("nb,bij->nij", gains, band_matrices(width, x.device, x.dtype))[:, None]
    columns = rows
    if height != width:
        columns = torch.einsum("nb,bij->nij", gains, band_matrices(height, x.device, x.dtype))[:, None]
    return columns @ x @ rows.mT  # the filter is separable


def cut_square(x: Float[Tensor, "n c h w"], centre: Float[Tensor, "n 2"]) -> Float[Tensor, "n c h w"]:
    """Leave nothing in a rectangle of half the picture's sides about a centre (x, y), in units of the sides."""
    height, width = x.shape[-2:]
    across = down = places_outside(width, centre)
    if height != width:
        down = places_outside(height, centre)
    return keep_inside(x, across[:, 0, None, None, :] | down[:, 1, None, :, None])


def places_outside(size: int, centre: Float[Tensor, "n k"]) -> Bool[Tensor, "n k size"]:
    """Return which places along an axis are further from a centre than a quarter of it."""
    place = (torch.arange(size, device=centre.device, dtype=centre.dtype) + 0.5) / size  # centres of pixels
    return (place - centre[:, :, None]).abs() >= 0.25
