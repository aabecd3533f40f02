"""FastGAN's self-supervised discriminator (Liu et al. 2021, arXiv:2101.04775, eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from trainer.losses.discriminator_pass import Round
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty
from trainer.networks.base import wide


class Reconstruction(Penalty):
    """What D's decoders rebuild from its features of reals, against the reals it was shown.

    Mean squared error, as in lightweight-gan; the paper's is a perceptual loss, which wants pretrained weights.
    """

    def __call__(self, seen: Round, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the loss."""
        rebuilt = seen.on_real.rebuilt
        pairs = zip(rebuilt[::2], rebuilt[1::2], strict=True)
        return torch.stack([mse_loss(wide(ours), wide(theirs)) for ours, theirs in pairs]).sum(), {}
