"""Losses on the classes that the discriminator guesses: AC-GAN's, and CAN's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty
from trainer.networks.base import DiscriminatorOutput, to_float32


def class_logits(output: DiscriminatorOutput) -> Tensor:
    """Return the logits of the classes (n, k), in float32."""
    assert output.classes is not None  # Config.check
    return to_float32(output.classes)


def cross_entropy(d_pass: DiscriminatorPass, output: DiscriminatorOutput) -> Loss:
    """Return -E log p(label | x) over the pictures whose class is known, 0 if there is none, summed over the labels."""
    labels = d_pass.models.discriminator.labels
    guessed = class_logits(output)
    # Of one label there is nothing to split, which would be launches for nothing.
    logits = guessed.split(labels.classes, 1) if len(labels.classes) > 1 else [guessed]
    losses = []
    for of_label, values in zip(logits, labels.split(d_pass.batch.label), strict=True):
        label = values.flatten().long()
        known = label >= 0
        # Any class will do where it is unknown: `known` takes these out again.
        entropy = F.cross_entropy(of_label, label.clamp(min=0), reduction="none")
        losses.append((entropy * known).sum() / known.sum().clamp(min=1))
    return sum(losses[1:], losses[0])


class DiscriminatorClasses(Penalty):
    """AC-GAN's L_C for D: the right class of reals and of fakes (Odena, Olah and Shlens 2017, eq. 3)."""

    wants_classes = True

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the loss."""
        return cross_entropy(d_pass, d_pass.d_real) + cross_entropy(d_pass, d_pass.d_fake), {}


class GeneratorClasses(Penalty):
    """AC-GAN's L_C for G: fakes that D finds to be of their class."""

    wants_classes = True
    network_name = "g"

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the loss."""
        return cross_entropy(d_pass, d_pass.d_fake), {}


class Style(Penalty):
    """CAN's classification loss for D: the right style of reals (Elgammal et al. 2017, arXiv:1706.07068, eq. 1)."""

    wants_classes = one_label = True

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the loss."""
        return cross_entropy(d_pass, d_pass.d_real), {}


class StyleAmbiguity(Penalty):
    """CAN's loss for G: art of no known style (Elgammal et al. 2017, eq. 1).

    -E sum over k of 1/K log p_k + (1 - 1/K) log(1 - p_k), with p the softmax over the K styles, as the paper writes it;
    many reimplementations take the cross entropy to the uniform distribution, which lacks the second term.
    """

    wants_classes = one_label = True
    network_name = "g"

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the loss."""
        logits = class_logits(d_pass.d_fake)
        k = logits.shape[1]
        log_p = F.log_softmax(logits, 1)
        # log(1 - p): kept from p = 1, where it is infinite.
        log_rest = (-log_p.exp()).clamp(min=-1 + 1e-6).log1p()
        return -(log_p / k + (1 - 1 / k) * log_rest).sum(1).mean(), {}
