"""What each network minimises, as functions of logits (high: real). Formulas over the logits of one micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu, softplus

from command_line.plugins import Registry
from trainer.core.registry import is_a

Logits = Float[Tensor, "n *places"]
"""Of pictures, or of each place of theirs: a pixel, or one of several logits."""
Loss = Float[Tensor, ""]


@dataclass(frozen=True)
class Objective:
    """A pair of losses."""

    discriminator: Callable[[Logits, Logits], Loss]
    """(real logits, fake logits) -> loss of the discriminator."""
    generator: Callable[[Logits, Callable[[], Logits]], Loss]
    """(fake logits, what gives the real logits if they are asked for) -> loss of the generator."""
    pairs: bool = False
    """Compares picture i of the reals with picture i of the fakes."""
    logistic: bool = True
    """Logits, or their differences, are log odds: 12 is as good as certain."""


def dual_contrastive(high: Logits, low: Logits) -> Loss:
    """Return how far each of the high logits is from standing out among the low ones, and each low one from these.

    The mean of log(1 + sum_j exp(low_j - high)) over the high ones, plus that of log(1 + sum_i exp(low - high_i)). A
    logit is compared with those of the same place: n x n differences for each, however many places there are.
    """
    differences = low[None, :] - high[:, None]
    of_high, of_low = differences.logsumexp(1), differences.logsumexp(0)
    return softplus(of_high).mean() + softplus(of_low).mean()  # softplus(log s) is log(1 + s)


OUR_OBJECTIVES = {
    # Goodfellow et al. 2014, §3: -log D(x) - log(1 - D(G(z))), and -log D(G(z)) for the generator.
    "non-saturating": Objective(
        discriminator=lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
        generator=lambda fake, real: softplus(-fake).mean(),
    ),
    # Goodfellow et al. 2014, eq. 1: one value, which D maximises and G minimises.
    "minimax": Objective(
        discriminator=lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
        generator=lambda fake, real: -softplus(fake).mean(),
    ),
    # Mao et al. 2017 (LSGAN), eq. 9, with a = 0 and b = c = 1.
    "least-squares": Objective(
        discriminator=lambda real, fake: 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean(),
        generator=lambda fake, real: 0.5 * (fake - 1).square().mean(),
        logistic=False,
    ),
    # Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17.
    "hinge": Objective(
        discriminator=lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(),
        generator=lambda fake, real: -fake.mean(),
        logistic=False,
    ),
    # Arjovsky et al. 2017, eq. 2 and 3; D must be kept Lipschitz, by penalties.wgan_gp or spectral normalisation.
    "wasserstein": Objective(
        discriminator=lambda real, fake: fake.mean() - real.mean(),
        generator=lambda fake, real: -fake.mean(),
        logistic=False,
    ),
    # Jolicoeur-Martineau 2019, §4.2 (RaSGAN): each picture against the mean of the other side.
    "relativistic-average": Objective(
        discriminator=lambda real, fake: softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean(),
        generator=lambda fake, real: softplus(real().mean() - fake).mean() + softplus(real() - fake.mean()).mean(),
    ),
    # Jolicoeur-Martineau 2019, §4.2 (RaHingeGAN): the same with hinges.
    "relativistic-hinge": Objective(
        discriminator=lambda real, fake: relu(1 + fake.mean() - real).mean() + relu(1 + fake - real.mean()).mean(),
        generator=lambda fake, real: relu(1 + real().mean() - fake).mean() + relu(1 + real() - fake.mean()).mean(),
        logistic=False,
    ),
    # Yu et al. 2021, arXiv:2103.16748, eq. 5 and 6: each real against all fakes, and each fake against all reals, as a
    # choice of one among them; G's loss is D's with both sides exchanged, as it would saturate with the sign changed.
    "dual-contrastive": Objective(
        discriminator=dual_contrastive,
        generator=lambda fake, real: dual_contrastive(fake, real()),
    ),
    # Jolicoeur-Martineau 2019, §4.1 (RSGAN); Huang et al. 2024 (R3GAN), eq. 2: picture i against picture i.
    "relativistic-pairing": Objective(
        discriminator=lambda real, fake: softplus(fake - real).mean(),
        generator=lambda fake, real: softplus(real() - fake).mean(),
        pairs=True,
    ),
}
OBJECTIVES = Registry(
    "objectives", OUR_OBJECTIVES, "an instance of trainer.losses.objectives.Objective", is_a(Objective)
)


@dataclass(frozen=True)
class TopK:
    """Only the fakes that D finds best move G (Sinha et al. 2020, arXiv:2002.06224): a share of each micro-batch.

    Args:
        share: the final share.
        images: it is reached after so many pictures, geometrically.
    """

    share: float
    images: int

    def __call__(self, fake: Logits, images_seen: int) -> Logits:
        """Return the highest logits."""
        if self.share == 1:
            return fake
        # Within the micro-batch, whose size is the same for any number of ranks.
        return fake.topk(self.count(len(fake), images_seen)).values

    def count(self, logits: int, images_seen: int) -> int:
        """Return how many of so many logits count."""
        share: float = self.share ** min(1.0, images_seen / self.images)
        return max(1, round(share * logits))
