"""LeCam regularisation (Tseng et al. 2021, arXiv:2104.03310, eq. 5 and 6)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import relu

from trainer.core.running_scalars import RunningScalars
from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty

DECAY = 0.99


class LeCam(Penalty):
    """Logits must not leave the running mean of the other side: E relu(D(x) - a_F)² + E relu(a_R - D(G(z)))².

    As in the authors' code only what is beyond the mean counts; their paper squares the whole difference. The running
    means begin as plain means (theirs: after 1,000 steps), and before the first update nothing counts.
    """

    running_scalars = {"lecam_real": 0.0, "lecam_fake": 0.0, "lecam_updates": 0.0}  # noqa: RUF012  # read only

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        real, fake, means = d_pass.d_real.logits, d_pass.d_fake.logits, d_pass.models.running_scalars
        beyond = relu(real - means["lecam_fake"]).square().mean() + relu(means["lecam_real"] - fake).square().mean()
        # Before the first update there is no mean to hold the logits to.
        return beyond * means["lecam_updates"].clamp(max=1), {}

    def update_scalars(self, running_scalars: RunningScalars, means: Mapping[str, Tensor]) -> None:
        """Move the running means."""
        # An update whose logits are not finite is not counted: its means are not kept either.
        running_scalars["lecam_updates"].add_(torch.isfinite(means["logits_real"] + means["logits_fake"]))
        # A plain mean of the first 100 updates, an exponential one from then on.
        weight = (1 / running_scalars["lecam_updates"]).clamp(min=1 - DECAY)
        running_scalars["lecam_real"].lerp_(means["logits_real"], weight)
        running_scalars["lecam_fake"].lerp_(means["logits_fake"], weight)
