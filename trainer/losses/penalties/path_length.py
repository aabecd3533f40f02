"""Path length regularisation of the generator (Karras et al. 2020a, arXiv:1912.04958, §3.2, eq. 4)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from trainer.core.randomness import normal
from trainer.core.running_scalars import Memory
from trainer.losses.discriminator_pass import Round
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty, picture_shape

DECAY = 0.01  # of the running mean, as in the authors' code
SHRINK = 2  # it looks at every second picture only, as in the authors' code


class PathLength(Penalty):
    """E (|J' y| - a)²: a step in the code moves the picture by a constant length, whatever the code and the direction.

    The code is w for StyleGAN2, where lengths are averaged over the layers, and z elsewhere; y is noise, scaled by the
    root of the number of pixels. The mean a is that of the earlier steps; the authors' own lets the present lengths
    into it, with weight 0.01.
    """

    player = "g"
    differentiates_twice = True
    measures = ("path_length_now",)
    memory = {"path_length_mean": 0.0}  # noqa: RUF012  # read only

    def draw(self, rng: np.random.Generator, n: int, size: int) -> dict[str, Tensor]:
        """Draw the directions in the space of pictures."""
        shape = picture_shape(size)
        return {"y": normal(rng, max(1, n // SHRINK), *shape).div_(max(size, 1))}

    def __call__(self, seen: Round, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty and the mean length."""
        n = max(1, len(seen.batch.label) // SHRINK)
        latent = seen.batch.latent.map(lambda t: t[:n])
        code = seen.game.generator.code(latent)
        if not code.requires_grad:  # z itself
            code = code.detach().requires_grad_()
        moved = seen.gradient(seen.game.generator.paint(code, latent) * draws["y"], code)
        lengths = moved.square().flatten(1).sum(1).div(code[0].numel() / code.shape[-1]).add(1e-12).sqrt()
        return (lengths - seen.game.memory["path_length_mean"]).square().mean(), {"path_length_now": lengths.mean()}

    def remember(self, memory: Memory, means: Mapping[str, Tensor]) -> None:
        """Move the running mean."""
        memory["path_length_mean"].lerp_(means["path_length_now"], DECAY)
