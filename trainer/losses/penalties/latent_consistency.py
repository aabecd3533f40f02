"""Latent consistency regularisation, zCR (Zhao et al. 2021, arXiv:2002.04724, algorithm 2).

Two penalties on pictures of z and of z + SIGMA e, with e from N(0, 1): D is to judge them alike, and G is to make them
different, lest it takes the easy way and ignores small steps of z. Together with bCR it is ICR.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trainer.core.randomness import normal
from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty
from trainer.networks.base import to_float32
from trainer.networks.network_settings import NetworkSettings

SIGMA = 0.05  # as in StudioGAN's settings for CIFAR-10 (BigGAN-ICR.yaml)


class LatentConsistency(Penalty):
    """What both penalties draw, and the pictures that they generate from it."""

    def draw(self, rng: np.random.Generator, n: int, network: NetworkSettings) -> dict[str, Tensor]:
        """Draw the steps of z."""
        return {"step": normal(rng, n, network.z_dim).mul_(SIGMA)}

    def beside(self, d_pass: DiscriminatorPass, draws: Drawn) -> Tensor:
        """Return the pictures of z + step; all other draws and the labels are those of the fakes."""
        latent = d_pass.batch.latent
        fake: Tensor = d_pass.models.generator(replace(latent, z=latent.z + draws["step"]))
        return fake


class DiscriminatorLatentConsistency(LatentConsistency):
    """E (D(T(G(z))) - D(T(G(z + step))))², over D; T is the same augmentation of both."""

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        with torch.no_grad():
            moved = d_pass.augment(self.beside(d_pass, draws), d_pass.batch.draws["show fake"])
        # Through the bare module: the extra pass collects no statistics and no gradients but this loss's.
        judged = to_float32(d_pass.models.discriminator(moved, d_pass.batch.label).logits)
        return (judged - d_pass.d_fake.logits).square().mean(), {}


class GeneratorLatentConsistency(LatentConsistency):
    """- E (G(z) - G(z + step))², a mean over pixels, over G: less of it is more variety."""

    network_name = "g"

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty, which is negative."""
        difference = to_float32(self.beside(d_pass, draws)) - to_float32(d_pass.fake)
        return -difference.square().mean(), {}
