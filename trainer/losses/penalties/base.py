"""What is added to a network's loss: terms with a weight, each a function of what the network has just done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from trainer.core.fields import identity
from trainer.core.running_scalars import RunningScalars
from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.networks.network_settings import NetworkSettings

Drawn = Mapping[str, Tensor]
"""What a penalty has drawn for a micro-batch, by name."""


@dataclass(frozen=True)
class Weighted:
    """How much a penalty counts, and how often it is computed."""

    weight: float = identity(0.0, "[0, inf)")
    """Factor of the penalty; 0: it is not computed."""
    final: float | None = identity(None, "[0, inf)")
    """The weight moves there, along half a cosine, over optimizer.decay_images."""
    every: int = identity(1, "[1, inf)")
    """Compute it in every so many updates only, and with so many times the weight."""


class Penalty(ABC):
    """A term of one network's loss."""

    network_name: Literal["g", "d"] = "d"
    against: frozenset[Literal["real", "fake"]] = frozenset()
    """The pictures against which it takes gradients."""
    differentiates_twice = False
    """Its loss holds a gradient."""
    wants_features = False
    """D must give the features of its logit."""
    wants_classes = False
    """D must guess classes."""
    wants_pixels = False
    """D must judge each pixel."""
    one_label = False
    """It is defined for the classes of one label."""
    measures: tuple[str, ...] = ()
    """Scalars that it measures besides its own value, which is measured under its name."""
    running_scalars: Mapping[str, float] = {}
    """First values of what it remembers."""

    def draw(self, rng: np.random.Generator, n: int, network: NetworkSettings) -> dict[str, Tensor]:
        """Draw on the CPU what it needs for n pictures, or points, of networks with these settings."""
        return {}

    @property
    def draws(self) -> bool:
        """Tell whether it draws anything."""
        return type(self).draw is not Penalty.draw

    @abstractmethod
    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return its value for a micro-batch, and what it measures besides."""

    def update_scalars(self, running_scalars: RunningScalars, means: Mapping[str, Tensor]) -> None:
        """Update the memory from the means over all micro-batches, after an update of the network that computed it."""
        return


def squared_norm(gradient: Float[Tensor, "n ..."], outputs: int) -> Float[Tensor, " m"]:
    """Return the squared length of the gradient of each output: over a picture, or over all pictures of a pack."""
    return gradient.reshape(outputs, -1).square().sum(1)


Build = Callable[[], Penalty]
