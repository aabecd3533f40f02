"""Path length regularisation of the generator (Karras et al. 2020a, arXiv:1912.04958, §3.2, eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from trainer.core.randomness import normal
from trainer.core.running_scalars import RunningScalars
from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty
from trainer.networks.network_settings import NetworkSettings

DECAY = 0.01  # of the running mean, as in the authors' code
SHRINK = 2  # it looks at every second picture only, as in the authors' code


class PathLength(Penalty):
    """E (|J' y| - a)²: a step in the code moves the picture by a constant length, whatever the code and the direction.

    The code is w for StyleGAN2, where lengths are averaged over the layers, and z elsewhere; y is noise, scaled by the
    root of the number of pixels. The mean a is that of the earlier steps; the authors' own lets the present lengths
    into it, with weight 0.01.
    """

    network_name = "g"
    differentiates_twice = True
    measures = ("path_length_now",)
    running_scalars = {"path_length_mean": 0.0}  # noqa: RUF012  # read only

    def draw(self, rng: np.random.Generator, n: int, network: NetworkSettings) -> dict[str, Tensor]:
        """Draw the directions in the space of pictures."""
        shape = network.data_shape
        return {"y": normal(rng, max(1, n // SHRINK), *shape).div_(math.sqrt(math.prod(shape[1:])))}

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty and the mean length."""
        # Half the batch: the penalty differentiates through the whole generator twice.
        n = max(1, len(d_pass.batch.label) // SHRINK)
        latent = d_pass.batch.latent.map(lambda t: t[:n])
        w = d_pass.models.generator.latent_code(latent)
        if not w.requires_grad:  # z itself
            w = w.detach().requires_grad_()
        moved = d_pass.gradient(d_pass.models.generator.synthesize(w, latent) * draws["y"], w)
        # The mean over layers of squared lengths; under the root, because its gradient at 0 is infinite.
        lengths = moved.square().flatten(1).sum(1).div(w[0].numel() / w.shape[-1]).add(1e-12).sqrt()
        # Of earlier steps: with the present lengths in it, the mean would depend on who computes which micro-batch.
        mean = d_pass.models.running_scalars["path_length_mean"]
        return (lengths - mean).square().mean(), {"path_length_now": lengths.mean()}

    def update_scalars(self, running_scalars: RunningScalars, means: Mapping[str, Tensor]) -> None:
        """Move the running mean."""
        running_scalars["path_length_mean"].lerp_(means["path_length_now"], DECAY)
