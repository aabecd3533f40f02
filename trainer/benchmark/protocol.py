"""What a protocol is: data with known modes, and a count of the modes in samples (Lin et al. 2018, PacGAN,
arXiv:1712.04086, section 4.1, after Srivastava et al. 2017, VEEGAN, arXiv:1705.07761, section 4.1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from PIL import Image
from torch import Tensor

Samples = npt.NDArray[np.float32]
"""(n, 2) points, or (n, 3, h, w) images in [-1, 1]."""
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """What was counted in the samples of one trial."""

    modes: int
    """Modes with at least one counted point."""
    reverse_kl: float
    """KL(histogram of the counted points || uniform), in nats: log K minus the entropy; log K, its largest value, if
    no point counts."""
    high_quality: float | None = None
    """Share of the points that count, in [0, 1]; None: the protocol counts all."""


def reverse_kl(counts: Indices) -> float:
    """Return KL(p || uniform) in nats of the histogram p over K modes; log K for an empty one."""
    p = counts[counts > 0] / max(1, counts.sum())  # 0 log 0 = 0; max: no division by zero for an empty histogram
    return float(np.log(len(counts)) + (p * np.log(p)).sum())


@dataclass(frozen=True)
class Published:
    """What the literature reports of one method: mean and standard error over ten trainings."""

    modes: str
    reverse_kl: str
    high_quality: str = ""
    """In percent."""


class Protocol(ABC):
    """Endless data with known modes, and a count of the modes in samples.

    A real sample depends only on the seed, the images seen before its update, and its micro-batch.
    """

    modes: int
    """The number of modes, K."""
    samples: int
    """How many samples are generated and counted."""
    shown: int
    """How many of them the picture shows."""
    steps: int
    """Updates of the generator in the published protocol."""
    source: str
    """Where `published` is from."""
    published: dict[str, Published]
    """The literature's values by method."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, n: int) -> Float[Tensor, "n ..."]:
        """Draw n real samples, as float32 on the CPU."""

    @abstractmethod
    def count_modes(self, samples: Samples) -> Figures:
        """Count the modes in samples; NaN and infinite ones belong to none."""

    @abstractmethod
    def draw_samples(self, samples: Samples, title: str) -> Image.Image:
        """Draw samples as a picture with a title."""

    def note(self) -> str:
        """Return a remark for below the table of results; empty: none."""
        return ""
