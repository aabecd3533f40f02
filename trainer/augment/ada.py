"""The augmentations of ADA (Karras et al. 2020, arXiv:2006.06676, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trainer.augment import colour
from trainer.augment.base import Augmentation, AugmentSettings
from trainer.augment.geometry import rotation_matrix, scaling_matrix, translation_matrix, warp_images
from trainer.augment.wavelets import band_matrices
from trainer.core.randomness import normal

LETTERS = {"b": "blit", "g": "geometry", "c": "colour", "f": "filter", "n": "noise", "o": "cutout"}
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Expected power of a picture in each band: about 1/f."""


def chance_of_each(p: Tensor) -> Tensor:
    """Return the probability of each of two rotations that makes the probability of any of them p."""
    # 1 - (1 - q)² = p, solved for q.
    return 1 - (1 - p).sqrt()


@dataclass(frozen=True)
class Transformation:
    """One random transformation: what its parameters are drawn from, and which draw leaves the picture alone."""

    letter: str
    name: str
    law: Literal["uniform", "normal"]
    value: Callable[[Tensor], Tensor]
    """From draws (n, width), uniform in [0, 1) or N(0, 1), to parameters (n, width)."""
    still: float
    """The draw whose parameters leave the picture alone."""
    width: int = 1
    gates: int = 1
    """1, or `width`: each parameter is chosen for itself."""
    chance: Callable[[Tensor], Tensor] = lambda p: p


TRANSFORMATIONS = (
    Transformation("b", "flip", "uniform", lambda u: (2 * u).floor(), 0),
    Transformation("b", "quarters", "uniform", lambda u: (4 * u).floor(), 0),
    Transformation("b", "shift", "uniform", lambda u: (2 * u - 1) / 8, 0.5, width=2),
    Transformation("g", "scale", "normal", lambda z: (0.2 * z).exp2(), 0),
    Transformation("g", "turn", "uniform", lambda u: math.pi * (2 * u - 1), 0.5, chance=chance_of_each),
    Transformation("g", "stretch", "normal", lambda z: (0.2 * z).exp2(), 0),
    Transformation("g", "turn_again", "uniform", lambda u: math.pi * (2 * u - 1), 0.5, chance=chance_of_each),
    Transformation("g", "move", "normal", lambda z: z / 8, 0, width=2),
    Transformation("c", "brightness", "normal", lambda z: 0.2 * z, 0),
    Transformation("c", "contrast", "normal", lambda z: (0.5 * z).exp2(), 0),
    Transformation("c", "luma_flip", "uniform", lambda u: (2 * u).floor(), 0),
    Transformation("c", "hue", "uniform", lambda u: math.pi * (2 * u - 1), 0.5),
    Transformation("c", "saturation", "normal", lambda z: z.exp2(), 0),
    Transformation("f", "gains", "normal", lambda z: z.exp2(), 0, width=4, gates=4),
    Transformation("n", "sigma", "normal", lambda z: 0.1 * z.abs(), 0),
    Transformation("o", "centre", "uniform", lambda u: u, -1, width=2),  # nothing is cut out around -1
)


@cache
def neutral_draws(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Float[Tensor, " width"]:
    """Return draws that leave pictures alone."""
    return torch.tensor(values, device=device, dtype=dtype)


class Ada(Augmentation):
    """Each transformation happens to each picture with probability p: blit, geometry, colour, filter, noise, cutout.

    A picture that none happens to is returned to the bit. All of it is computed in float32, or in float64 for
    pictures in float64.
    """

    def __init__(self, settings: AugmentSettings, size: int) -> None:
        super().__init__(settings, size)
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
            draws["noise"] = normal(rng, n, 3, self.size, self.size)
        return draws

    def parameters(
        self, draws: Mapping[str, Tensor], p: Float[Tensor, ""]
    ) -> tuple[dict[str, Float[Tensor, "n ..."]], Bool[Tensor, " n"]]:
        """Return the parameters by name, neutral where their transformation does not happen, and where any happens."""
        # p stays on the device: each gate is a comparison there, and no branch of the host depends on it.
        chances = {chance: chance(p) for chance in {t.chance for t in self.transformations}}
        happens = draws["gate"] < torch.stack([chances[t.chance] for t in self.transformations for _ in range(t.gates)])
        gates = dict(zip(self.transformations, happens.split([t.gates for t in self.transformations], 1), strict=True))
        values: dict[str, Tensor] = {}
        for law in ("uniform", "normal"):
            drawn = [t for t in self.transformations if t.law == law]
            if not drawn:
                continue
            widths = [t.width for t in drawn]
            # What draws nothing of its own has the draw that leaves the picture alone: one choice for all of a law.
            chosen = torch.cat([gates[t].expand(-1, t.width) for t in drawn], 1)
            still = neutral_draws(tuple(t.still for t in drawn for _ in range(t.width)), p.device, draws[law].dtype)
            columns = torch.where(chosen, draws[law], still).split(widths, 1)
            values |= {t.name: t.value(column).squeeze(1) for t, column in zip(drawn, columns, strict=True)}
        return values, happens.any(1)

    def __call__(
        self, x: Float[Tensor, "n 3 s s"], draws: Mapping[str, Tensor], p: Float[Tensor, ""]
    ) -> Float[Tensor, "n 3 s s"]:
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
                c = colour_matrix(t)
                y = (c[:, :3, :3] @ y.flatten(2) + c[:, :3, 3:]).view_as(x)
            if "f" in pipe:
                y = amplify_bands(y, t["gains"])
            if "n" in pipe:
                y = y + t["sigma"][:, None, None, None] * draws["noise"]
            if "o" in pipe:
                y = cut_square(y, t["centre"])
            # A picture that nothing happened to must come back to the bit, whatever the arithmetic above rounds.
            return torch.where(happens[:, None, None, None], y, x)

    def inverse(self, t: Mapping[str, Tensor]) -> Float[Tensor, "n 3 3"]:
        """Return G⁻¹, from where a pixel is to where it comes from: the inverses, that of the first one on the left."""
        chain: list[Tensor] = []
        if "b" in self.settings.pipe:
            mirror = 1 - 2 * t["flip"]
            # Whole pixels: a blit copies them and interpolates nothing.
            shift = (t["shift"] * self.size).round()
            # The paper turns by minus these angles, here and below, so the inverse turns by them.
            chain += [scaling_matrix(mirror, torch.ones_like(mirror)), rotation_matrix(math.pi / 2 * t["quarters"])]
            chain += [translation_matrix(-shift[:, 0], -shift[:, 1])]
        if "g" in self.settings.pipe:
            shift = t["move"] * self.size
            chain += [scaling_matrix(1 / t["scale"], 1 / t["scale"]), rotation_matrix(t["turn"])]
            chain += [scaling_matrix(1 / t["stretch"], t["stretch"]), rotation_matrix(t["turn_again"])]
            chain += [translation_matrix(-shift[:, 0], -shift[:, 1])]
        return reduce(torch.matmul, chain)


def colour_matrix(t: Mapping[str, Tensor]) -> Float[Tensor, "n 4 4"]:
    """Return C, all colour transformations in one: the first one on the right."""
    chain = [
        colour.saturation(t["saturation"]),
        colour.hue(t["hue"]),
        colour.luma_flip(t["luma_flip"]),
        colour.contrast(t["contrast"]),
        colour.brightness(t["brightness"]),
    ]
    return reduce(torch.matmul, chain)


def amplify_bands(x: Float[Tensor, "n c s s"], gains: Float[Tensor, "n 4"]) -> Float[Tensor, "n c s s"]:
    """Amplify four bands of frequencies; each gain comes with a factor on all bands that keeps the expected power."""
    for gain, power in zip(gains.split(1, 1), POWER, strict=True):
        # POWER sums to 1: with one band times g, the expected power is 1 + power (g² - 1).
        gains = gains / (1 + power * (gain.square() - 1)).sqrt()
    f = torch.einsum("nb,bij->nij", gains, band_matrices(x.shape[-1], x.device, x.dtype))[:, None]
    return f @ x @ f.mT  # columns, then rows: the filter is separable


def cut_square(x: Float[Tensor, "n c s s"], centre: Float[Tensor, "n 2"]) -> Float[Tensor, "n c s s"]:
    """Set to zero a square of half the picture's side about a centre (x, y), in units of that side."""
    size = x.shape[-1]
    place = (torch.arange(size, device=x.device, dtype=x.dtype) + 0.5) / size  # centres of pixels
    outside = (place - centre[:, :, None]).abs() >= 0.25
    return x * (outside[:, 0, None, None, :] | outside[:, 1, None, :, None])
