"""LeCam regularisation (Tseng et al. 2021, arXiv:2104.03310, eq. 5 and 6)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import relu

from trainer.core.running_scalars import Memory
from trainer.losses.discriminator_pass import Round
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty

DECAY = 0.99


class LeCam(Penalty):
    """Logits must not leave the running mean of the other side: E relu(D(x) - a_F)² + E relu(a_R - D(G(z)))².

    As in the authors' code only what is beyond the mean counts; their paper squares the whole difference. The running
    means begin as plain means (theirs: after 1,000 steps), and before the first update nothing counts.
    """

    memory = {"lecam_real": 0.0, "lecam_fake": 0.0, "lecam_updates": 0.0}  # noqa: RUF012  # read only

    def __call__(self, seen: Round, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        real, fake, memory = seen.on_real.logits, seen.on_fake.logits, seen.game.memory
        beyond = relu(real - memory["lecam_fake"]).square().mean() + relu(memory["lecam_real"] - fake).square().mean()
        return beyond * memory["lecam_updates"].clamp(max=1), {}

    def remember(self, memory: Memory, means: Mapping[str, Tensor]) -> None:
        """Move the running means."""
        # An update whose logits are not finite is not counted: its means are not kept either.
        memory["lecam_updates"].add_(torch.isfinite(means["logits_real"] + means["logits_fake"]))
        weight = (1 / memory["lecam_updates"]).clamp(min=1 - DECAY)
        memory["lecam_real"].lerp_(means["logits_real"], weight)
        memory["lecam_fake"].lerp_(means["logits_fake"], weight)
