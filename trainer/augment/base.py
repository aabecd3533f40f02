"""What every augmentation is: a differentiable function of pictures and of draws that it is handed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from trainer.core.fields import identity, later_identity


@dataclass(frozen=True)
class AugmentSettings:
    """What the discriminator sees in place of the pictures themselves."""

    kind: str = identity("none")
    """none, diffaugment (Zhao et al. 2020) or ada (Karras et al. 2020)."""
    policy: str = identity("color,translation,cutout")
    """The parts of diffaugment, in order."""
    pipe: str = identity("bgc")
    """The parts of ada: b blit, g geometry, c colour, f filter, n noise, o cutout."""
    colour_share: float = later_identity(1.0, "[0, 1]")
    """Transformations of ada's colour happen with this share of the probability of the others."""
    p: float = identity(0.0, "[0, 1]")
    """The probability of each of ada's transformations, and of apa's deceptions, when training starts."""
    p_final: float | None = identity(None, "[0, 1]")
    """Without adaptive: p moves there, along a half cosine, over optimizer.decay_images."""
    adaptive: bool = identity(True)
    """p follows how far the discriminator overfits: E sign(D(real)) against the target."""
    target: float = identity(0.6, "[-1, 1]")
    """The wanted E sign(D(real))."""
    speed_images: int = identity(500_000, "[1, inf)")
    """Real pictures over which p can go from 0 to 1."""
    interval: int = identity(4, "[1, inf)")
    """Updates of the discriminator between two moves of p."""
    apa: bool = identity(False)
    """Show the discriminator fakes as reals, with probability p (Jiang et al. 2021)."""
    blur_sigma: float = later_identity(0.0, "[0, 64]")
    """Blur what the discriminator sees while training begins, by so many pixels at first (Karras et al. 2021)."""
    blur_images: int = later_identity(0, "[0, inf)")
    """Pictures over which that blur fades away."""

    @property
    def uses_p(self) -> bool:
        """Tell whether anything depends on p."""
        return self.kind == "ada" or self.apa


class Augmentation(ABC):
    """Transforms pictures in [-1, 1], with gradients; all draws are made by `draw`.

    Those of one channel are grey, of three RGB, of four RGBA with colours times alpha. Transformations of colour leave
    alpha alone, and act on RGBA as they would on the colours before these were multiplied.

    Args:
        settings: of the run.
        shape: of the pictures, (c, h, w).
    """

    def __init__(self, settings: AugmentSettings, shape: tuple[int, ...]) -> None:
        self.settings, self.shape = settings, shape

    @staticmethod
    def problem(settings: AugmentSettings) -> str | None:
        """Return what is wrong with the settings that are this augmentation's, or None."""
        return None

    @abstractmethod
    def draw(self, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """Draw on the CPU what n pictures need: tensors whose first dimension is n."""

    @abstractmethod
    def __call__(
        self, x: Float[Tensor, "n c h w"], draws: Mapping[str, Tensor], p: Float[Tensor, ""]
    ) -> Float[Tensor, "n c h w"]:
        """Transform pictures in float32 (float64 in tests); p is a tensor on their device, never read by the host."""
