"""One-centred gradient penalties: WGAN-GP and DRAGAN. Both let D judge pictures of their own making."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from trainer.core.randomness import uniform
from trainer.losses.discriminator_pass import Round
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty, picture_shape, squared_norm
from trainer.networks.base import wide


def penalty_at(seen: Round, x: Tensor) -> Loss:
    """Return E (|grad D(x)| - 1)²."""
    x = x.detach().requires_grad_()
    logits = seen.game.discriminator(x, seen.batch.label).logits
    return (squared_norm(seen.gradient(logits, x), len(logits)).add(1e-12).sqrt() - 1).square().mean()


class WganGp(Penalty):
    """Gradients of length one between reals and fakes (Gulrajani et al. 2017, eq. 3); the weight is their lambda."""

    differentiates_twice = True

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, Tensor]:
        """Draw where between real and fake: one number a picture."""
        return {"alpha": uniform(rng, n, *(1 for _ in picture_shape(size)))}

    def __call__(self, seen: Round, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        return penalty_at(seen, wide(seen.shown_fake).lerp(seen.shown_real, draws["alpha"])), {}


class Dragan(Penalty):
    """Gradients of length one around reals (Kodali et al. 2017, arXiv:1705.07215, §2.3).

    As in the authors' code: x + alpha * 0.5 * std(x) * u, with u uniform and std over the micro-batch.
    """

    differentiates_twice = True

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, Tensor]:
        """Draw how far from each real, and in which direction."""
        shape = picture_shape(size)
        return {"alpha": uniform(rng, n, *(1 for _ in shape)), "u": uniform(rng, n, *shape)}

    def __call__(self, seen: Round, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        real = seen.shown_real.detach()
        return penalty_at(seen, real + draws["alpha"] * 0.5 * real.std() * draws["u"]), {}
