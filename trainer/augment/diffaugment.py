"""DiffAugment (Zhao et al. 2020, arXiv:2006.10738): the same kinds of transformation for every picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from command_line.suggestion import did_you_mean
from trainer.augment.base import Augmentation, AugmentSettings
from trainer.augment.channels import join_alpha, keep_inside, split_alpha, weigh


class DiffAugment(Augmentation):
    """The parts of the policy, in order, on all pictures whatever p is (§3.2)."""

    def __init__(self, settings: AugmentSettings, shape: tuple[int, ...]) -> None:
        super().__init__(settings, shape)
        self.policy = settings.policy.split(",")

    @staticmethod
    def problem(settings: AugmentSettings) -> str | None:
        """Return which part of the policy is unknown or named twice, or None."""
        policy = settings.policy.split(",")
        for part in policy:
            if part not in PARTS:
                hint = did_you_mean(part, PARTS, f"the parts are {', '.join(PARTS)}")
                return f"augment.policy has no part {part!r}; {hint}"
            if policy.count(part) > 1:
                return f"augment.policy names {part!r} twice"
        return None

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """Draw the numbers of each part of the policy."""
        return {part: torch.from_numpy(PARTS[part][0](rng, n, self.shape[1:])) for part in self.policy}

    def __call__(
        self, x: Float[Tensor, "n c h w"], draws: Mapping[str, Tensor], p: Float[Tensor, ""]
    ) -> Float[Tensor, "n c h w"]:
        """Transform pictures; p has no part in it."""
        # In bf16 neighbouring shades would become equal, and contrast would be computed from few digits.
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            for part in self.policy:
                x = PARTS[part][1](x, draws[part])
            return x


def color(x: Float[Tensor, "n c h w"], u: Float[Tensor, "n 3"]) -> Float[Tensor, "n c h w"]:
    """Change brightness by up to ±0.5, saturation by a factor of 0 to 2, and contrast by one of 0.5 to 1.5.

    Grey has no saturation. The mean that contrast moves away from is that of what can be seen.
    """
    brightness, saturation, contrast = u.to(x.dtype)[:, :, None, None, None].unbind(1)
    q, alpha = split_alpha(x)
    q = q + weigh(brightness - 0.5, alpha)
    if q.shape[1] > 1:
        q = torch.lerp(q.mean(1, keepdim=True), q, 2 * saturation)
    mean = q.mean((1, 2, 3), keepdim=True)
    if alpha is not None:
        mean = mean / alpha.mean((1, 2, 3), keepdim=True).clamp_min(1e-6) * alpha
    return join_alpha(torch.lerp(mean, q, contrast + 0.5), x)


def translation(x: Float[Tensor, "n c h w"], shift: Int[Tensor, "n 2"]) -> Float[Tensor, "n c h w"]:
    """Move pictures by whole pixels, down and to the right; what comes in is zero, or transparent."""
    # By gathers, not by padding and slicing: each image has a shift of its own, and the host knows none of them.
    height, width = x.shape[-2:]
    across = down = moved_places(width, shift)
    if height != width:
        down = moved_places(height, shift)
    (rows, of_rows), (columns, of_columns) = [part[:, 0] for part in down], [part[:, 1] for part in across]
    x = x.gather(2, rows[:, None, :, None].expand_as(x)).gather(3, columns[:, None, None, :].expand_as(x))
    return keep_inside(x, of_rows[:, None, :, None] & of_columns[:, None, None, :])


def moved_places(size: int, shift: Int[Tensor, "n k"]) -> tuple[Int[Tensor, "n k size"], Bool[Tensor, "n k size"]]:
    """Return where the places along an axis come from, and which of them come from inside."""
    source = torch.arange(size, device=shift.device) - shift[:, :, None]
    return source.clamp(0, size - 1), (source >= 0) & (source < size)


def cutout(x: Float[Tensor, "n c h w"], centre: Int[Tensor, "n 2"]) -> Float[Tensor, "n c h w"]:
    """Set to zero, or make transparent, a rectangle of half the picture's sides about a centre (row, column).

    It may reach over the border.
    """
    height, width = x.shape[-2:]
    across = down = places_outside(width, centre)
    if height != width:
        down = places_outside(height, centre)
    return keep_inside(x, down[:, 0, None, :, None] | across[:, 1, None, None, :])


def places_outside(size: int, centre: Int[Tensor, "n k"]) -> Bool[Tensor, "n k size"]:
    """Return which places along an axis are not cut out."""
    start = centre[:, :, None] - half(size) // 2
    place = torch.arange(size, device=centre.device)
    return (place < start) | (place >= start + half(size))


def half(size: int) -> int:
    """Return the length of what is cut out along one axis."""
    return (size + 1) // 2


Sides = tuple[int, ...]
"""Height and width."""


def draw_color(rng: np.random.Generator, n: int, sides: Sides) -> np.ndarray:
    """Draw from U(0, 1) for brightness, saturation and contrast."""
    return rng.random((n, 3), dtype=np.float32)


def draw_along(rng: np.random.Generator, n: int, low: list[int], high: list[int]) -> np.ndarray:
    """Draw whole numbers from `low` to below `high`, for rows and columns."""
    if low[0] == low[1] and high[0] == high[1]:  # as for squares: with a list NumPy draws other numbers
        return rng.integers(low[0], high[0], (n, 2))
    return rng.integers(low, high, (n, 2))


def draw_translation(rng: np.random.Generator, n: int, sides: Sides) -> np.ndarray:
    """Draw whole pixels, of up to an eighth of each side."""
    reach = [int(side / 8 + 0.5) for side in sides]  # rounded as in the authors' code
    return draw_along(rng, n, [-far for far in reach], [far + 1 for far in reach])


def draw_cutout(rng: np.random.Generator, n: int, sides: Sides) -> np.ndarray:
    """Draw centres from the whole picture, for an even length also from the line after its last pixels."""
    return draw_along(rng, n, [0, 0], [side + 1 - half(side) % 2 for side in sides])


Draw = Callable[[np.random.Generator, int, Sides], np.ndarray]
Transform = Callable[[Tensor, Tensor], Tensor]
PARTS: dict[str, tuple[Draw, Transform]] = {
    "color": (draw_color, color),
    "translation": (draw_translation, translation),
    "cutout": (draw_cutout, cutout),
}
