"""What a protocol is: data of known modes, and a judge of samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from trainer.benchmark.figures import Figures

Samples = npt.NDArray[np.float32]
"""(n, 2) points, or (n, 3, h, w) pictures in [-1, 1]."""


@dataclass(frozen=True)
class Published:
    """What the literature reports of one method: mean and standard error over ten trainings."""

    modes: str
    reverse_kl: str
    high_quality: str = ""
    """In percent."""


class Protocol(ABC):
    """Endless data of known modes, and the judge of samples.

    A real sample is a function of the seed, the pictures seen before its update, and its micro-batch: of nothing else.
    """

    modes: int
    """K."""
    samples: int
    """How many are judged."""
    shown: int
    """How many of them a picture shows."""
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
    def judge(self, samples: Samples) -> Figures:
        """Count the modes of a sample; what is not finite belongs to none."""

    @abstractmethod
    def picture(self, samples: Samples, title: str) -> Image.Image:
        """Show a sample."""

    def note(self) -> str:
        """Say what a table of results must say besides; empty: nothing."""
        return ""
