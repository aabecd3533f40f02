"""Balanced consistency regularisation, bCR (Zhao et al. 2021, arXiv:2002.04724, algorithm 1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty
from trainer.networks.base import to_float32
from trainer.networks.network_settings import NetworkSettings

SHIFT = 4  # pixels


class Consistency(Penalty):
    """E (D(T(x)) - D(x))² over reals and fakes alike, with T a mirroring and a shift by up to four pixels."""

    def draw(self, rng: np.random.Generator, n: int, network: NetworkSettings) -> dict[str, Tensor]:
        """Draw for reals and fakes whether each is mirrored, and by how many pixels it is shifted."""
        return {
            "flip": torch.from_numpy(rng.random((n, 2)) < 0.5),
            "shift": torch.from_numpy(rng.integers(-SHIFT, SHIFT + 1, (n, 2, 2))),
        }

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        differences = []
        for k, (x, judged) in enumerate(
            ((d_pass.augmented_real, d_pass.d_real), (d_pass.augmented_fake, d_pass.d_fake))
        ):
            moved = mirror_and_shift(x.detach(), draws["flip"][:, k], draws["shift"][:, k])
            # Through the bare module: the extra pass collects no statistics and no gradients but this loss's.
            differences.append(
                to_float32(d_pass.models.discriminator(moved, d_pass.batch.label).logits) - judged.logits
            )
        return torch.stack(differences).square().flatten(1).mean(1).sum(), {}


def mirror_and_shift(x: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
    """Mirror and shift each picture (n, c, h, w); what comes in from outside is the reflection at the border."""
    n, c, h, w = x.shape
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    x = F.pad(x, (SHIFT,) * 4, mode="reflect")
    rows = (torch.arange(h, device=x.device) + SHIFT + shift[:, :1])[:, None, :, None]
    columns = (torch.arange(w, device=x.device) + SHIFT + shift[:, 1:])[:, None, None, :]
    picture, channel = torch.arange(n, device=x.device), torch.arange(c, device=x.device)
    moved: Tensor = x[picture[:, None, None, None], channel[:, None, None], rows, columns]
    return moved
