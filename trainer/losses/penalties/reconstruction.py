"""FastGAN's self-supervised discriminator (Liu et al. 2021, arXiv:2101.04775, eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty
from trainer.networks.base import to_float32


class Reconstruction(Penalty):
    """What D's decoders rebuild from its features of reals, against the reals it was shown.

    Mean squared error, as in lightweight-gan; the paper's is a perceptual loss, which wants pretrained weights.
    """

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the loss."""
        reconstructions = d_pass.d_real.reconstructions
        pairs = zip(reconstructions[::2], reconstructions[1::2], strict=True)
        return torch.stack([mse_loss(to_float32(ours), to_float32(theirs)) for ours, theirs in pairs]).sum(), {}
