"""What each network minimises, as functions of logits (high: real). Formulas over the logits of one micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu, softplus

Logits = Float[Tensor, " n"]
Loss = Float[Tensor, ""]


@dataclass(frozen=True)
class Objective:
    """A pair of losses."""

    discriminator: Callable[[Logits, Logits], Loss]
    """(real logits, fake logits) -> loss of the discriminator."""
    generator: Callable[[Logits], Loss]
    """fake logits -> loss of the generator."""


OBJECTIVES = {
    # Goodfellow et al. 2014, §3: -log D(x) - log(1 - D(G(z))), and -log D(G(z)) for the generator.
    "non-saturating": Objective(
        discriminator=lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
        generator=lambda fake: softplus(-fake).mean(),
    ),
    # Mao et al. 2017 (LSGAN), eq. 9, with a = 0 and b = c = 1.
    "least-squares": Objective(
        discriminator=lambda real, fake: 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean(),
        generator=lambda fake: 0.5 * (fake - 1).square().mean(),
    ),
    # Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17.
    "hinge": Objective(
        discriminator=lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(),
        generator=lambda fake: -fake.mean(),
    ),
}
