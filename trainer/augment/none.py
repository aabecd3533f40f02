"""No augmentation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from trainer.augment.base import Augmentation


class Nothing(Augmentation):
    """Pictures as they are."""

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """Draw nothing."""
        return {}

    def __call__(self, x: Tensor, draws: Mapping[str, Tensor], p: Tensor) -> Tensor:
        """Return x."""
        return x
