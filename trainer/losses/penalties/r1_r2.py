"""Zero-centred gradient penalties: R1 on reals and R2 on fakes (Mescheder, Geiger and Nowozin 2018, eq. 9 and 10).

Both take gradients with respect to the pictures before augmentation, and reuse D's own pass.
"""

from __future__ import annotations

from torch import Tensor

from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty, squared_norm


class R1(Penalty):
    """1/2 E |grad D(x)|² over reals; the weight is the papers' gamma."""

    against = frozenset(("real",))
    differentiates_twice = True

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        # D's own pass is reused: one forward pass serves the loss and the penalty.
        logits = d_pass.d_real.logits
        return 0.5 * squared_norm(d_pass.gradient(logits, d_pass.real), len(logits)).mean(), {}


class R2(Penalty):
    """1/2 E |grad D(x)|² over fakes."""

    against = frozenset(("fake",))
    differentiates_twice = True

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        logits = d_pass.d_fake.logits
        return 0.5 * squared_norm(d_pass.gradient(logits, d_pass.fake), len(logits)).mean(), {}
