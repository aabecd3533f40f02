"""One-centred gradient penalties: WGAN-GP and DRAGAN. Both let D judge pictures of their own making."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from trainer.core.randomness import uniform
from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty, squared_norm
from trainer.networks.base import to_float32
from trainer.networks.network_settings import NetworkSettings


def penalty_at(d_pass: DiscriminatorPass, x: Tensor) -> Loss:
    """Return E (|grad D(x)| - 1)²."""
    x = x.detach().requires_grad_()
    # Through the bare module: an extra pass, whose statistics do not count.
    logits = d_pass.models.discriminator(x, d_pass.batch.label).logits
    return (squared_norm(d_pass.gradient(logits, x), len(logits)).add(1e-12).sqrt() - 1).square().mean()


class WganGp(Penalty):
    """Gradients of length one between reals and fakes (Gulrajani et al. 2017, eq. 3); the weight is their lambda."""

    differentiates_twice = True

    def draw(self, rng: np.random.Generator, n: int, network: NetworkSettings) -> dict[str, Tensor]:
        """Draw where between real and fake: one number a picture."""
        return {"alpha": uniform(rng, n, *(1 for _ in network.data_shape))}

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        return penalty_at(d_pass, to_float32(d_pass.augmented_fake).lerp(d_pass.augmented_real, draws["alpha"])), {}


class Dragan(Penalty):
    """Gradients of length one around reals (Kodali et al. 2017, arXiv:1705.07215, §2.3).

    As in the authors' code: x + alpha * 0.5 * std(x) * u, with u uniform and std over the micro-batch.
    """

    differentiates_twice = True

    def draw(self, rng: np.random.Generator, n: int, network: NetworkSettings) -> dict[str, Tensor]:
        """Draw how far from each real, and in which direction."""
        shape = network.data_shape
        return {"alpha": uniform(rng, n, *(1 for _ in shape)), "u": uniform(rng, n, *shape)}

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        real = d_pass.augmented_real.detach()
        return penalty_at(d_pass, real + draws["alpha"] * 0.5 * real.std() * draws["u"]), {}
