"""Feature matching (Salimans et al. 2016, arXiv:1606.03498, §3.1)."""

from __future__ import annotations

from torch import Tensor

from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty
from trainer.networks.base import to_float32


class FeatureMatching(Penalty):
    """|E f(T(x)) - E f(T(G(z)))|², over G: fakes have the mean features of reals, those that D's logit is made of.

    Means are over the micro-batch.
    """

    network_name = "g"
    wants_features = True

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        real, fake = d_pass.d_real.features, d_pass.d_fake.features
        assert real is not None
        assert fake is not None
        return (to_float32(fake).mean(0) - to_float32(real).detach().mean(0)).square().sum(), {}
