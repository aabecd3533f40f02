"""DiffAugment (Zhao et al. 2020, arXiv:2006.10738): the same kinds of transformation for every picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from command_line.suggestion import did_you_mean
from trainer.augment.base import Augmentation, AugmentSettings


class DiffAugment(Augmentation):
    """The parts of the policy, in order, on all pictures whatever p is (§3.2)."""

    def __init__(self, settings: AugmentSettings, size: int) -> None:
        super().__init__(settings, size)
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
        return {part: torch.from_numpy(PARTS[part][0](rng, n, self.size)) for part in self.policy}

    def __call__(
        self, x: Float[Tensor, "n 3 s s"], draws: Mapping[str, Tensor], p: Float[Tensor, ""]
    ) -> Float[Tensor, "n 3 s s"]:
        """Transform pictures; p has no part in it."""
        # In bf16 neighbouring shades would become equal, and contrast would be computed from few digits.
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            for part in self.policy:
                x = PARTS[part][1](x, draws[part])
            return x


def color(x: Float[Tensor, "n 3 s s"], u: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 s s"]:
    """Change brightness by up to ±0.5, saturation by a factor of 0 to 2, and contrast by one of 0.5 to 1.5."""
    brightness, saturation, contrast = u.to(x.dtype)[:, :, None, None, None].unbind(1)
    x = x + (brightness - 0.5)
    x = torch.lerp(x.mean(1, keepdim=True), x, 2 * saturation)
    return torch.lerp(x.mean((1, 2, 3), keepdim=True), x, contrast + 0.5)


def translation(x: Float[Tensor, "n 3 s s"], shift: Int[Tensor, "n 2"]) -> Float[Tensor, "n 3 s s"]:
    """Move pictures by whole pixels, down and to the right; what comes in is zero."""
    size = x.shape[-1]
    # By gathers, not by padding and slicing: each image has a shift of its own, and the host knows none of them.
    source = torch.arange(size, device=x.device) - shift[:, :, None]
    inside = (source >= 0) & (source < size)
    rows, columns = source.clamp(0, size - 1).unbind(1)
    x = x.gather(2, rows[:, None, :, None].expand_as(x)).gather(3, columns[:, None, None, :].expand_as(x))
    return x * (inside[:, 0, None, :, None] & inside[:, 1, None, None, :])


def cutout(x: Float[Tensor, "n 3 s s"], centre: Int[Tensor, "n 2"]) -> Float[Tensor, "n 3 s s"]:
    """Set to zero a square of half the picture's side about a centre (row, column); it may reach over the border."""
    size = x.shape[-1]
    start = centre[:, :, None] - half(size) // 2
    place = torch.arange(size, device=x.device)
    outside = (place < start) | (place >= start + half(size))
    return x * (outside[:, 0, None, :, None] | outside[:, 1, None, None, :])


def half(size: int) -> int:
    """Return the side of the square that is cut out."""
    return (size + 1) // 2


def draw_color(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Draw from U(0, 1) for brightness, saturation and contrast."""
    return rng.random((n, 3), dtype=np.float32)


def draw_translation(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Draw whole pixels, of up to an eighth of the side."""
    reach = int(size / 8 + 0.5)  # rounded as in the authors' code
    return rng.integers(-reach, reach + 1, (n, 2))


def draw_cutout(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Draw centres from the whole picture, for an even square also from the line after its last pixels."""
    return rng.integers(0, size + 1 - half(size) % 2, (n, 2))


Draw = Callable[[np.random.Generator, int, int], np.ndarray]
Transform = Callable[[Tensor, Tensor], Tensor]
PARTS: dict[str, tuple[Draw, Transform]] = {
    "color": (draw_color, color),
    "translation": (draw_translation, translation),
    "cutout": (draw_cutout, cutout),
}
