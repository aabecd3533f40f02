"""The discriminator's view of one micro-batch: augmented reals and fakes, and D's output for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.augment.pipeline import AugmentPipeline
from trainer.core.running_scalars import RunningScalars
from trainer.losses.batch import Batch
from trainer.losses.objectives import Logits, Loss, Objective, TopK
from trainer.networks.base import Discriminator, DiscriminatorOutput, Generator, to_float32
from trainer.networks.convolution import ordinary_double_backward


@dataclass(frozen=True)
class Models:
    """What stays the same from micro-batch to micro-batch."""

    generator: Generator
    discriminator: Discriminator
    """The bare modules: gradients of passes through them reach a flat buffer only if a loss asks for them."""
    augment: AugmentPipeline
    running_scalars: RunningScalars

    def update_p(self, scalars: dict[str, Tensor], images_seen: int) -> dict[str, Tensor]:
        """Update the probability of augmentation after an update of D; return `scalars` with it, without the signs."""
        rest = {name: value for name, value in scalars.items() if name != "sign_real"}
        self.augment.update_p(self.running_scalars, scalars["sign_real"], images_seen)
        return rest | self.augment.logged(self.running_scalars)


def mean(losses: Sequence[Loss]) -> Loss:
    """Return the mean of losses; of one, itself."""
    return torch.stack(list(losses)).mean() if len(losses) > 1 else losses[0]


@dataclass
class DiscriminatorPass:
    """Reals and fakes of one micro-batch; each property is computed when it is first read, and kept.

    Args:
        models: the networks, augmentation and running scalars.
        batch, fake: the micro-batch, and G's images for it.
        discriminate: D as this update runs it: compiled, or the module itself.
        scale: fp16's loss scale, 1 elsewhere.
        real_requires_grad: a penalty takes gradients with respect to the reals.
    """

    models: Models
    batch: Batch
    fake: Float[Tensor, "n 3 h w"]
    discriminate: Callable[[Tensor, Tensor], DiscriminatorOutput]
    scale: Float[Tensor, ""]
    real_requires_grad: bool = False

    @cached_property
    def real(self) -> Float[Tensor, "n 3 h w"]:
        """The reals as a leaf; with APA some of them are fakes."""
        fake, draws = self.fake.detach(), self.batch.draws["show real"]
        real = self.models.augment.apa_replace(self.batch.real, fake, draws, self.models.running_scalars)
        # A leaf, so that R1 differentiates with respect to the image before augmentation.
        return real.detach().requires_grad_(self.real_requires_grad)

    @cached_property
    def augmented_real(self) -> Float[Tensor, "n 3 h w"]:
        """T(x)."""
        return self.augment(self.real, self.batch.draws["show real"])

    @cached_property
    def augmented_fake(self) -> Float[Tensor, "n 3 h w"]:
        """T(G(z))."""
        return self.augment(self.fake, self.batch.draws["show fake"])

    def augment(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Return what D judges of pictures: blurred while training begins, then augmented."""
        augment = self.models.augment
        return augment(augment.blur(x, self.batch.images_seen), draws, self.models.running_scalars)

    @cached_property
    def d_real(self) -> DiscriminatorOutput:
        """D(T(x))."""
        return self.d_both[0] if self.at_once else self.run_discriminator(self.augmented_real)

    @cached_property
    def d_fake(self) -> DiscriminatorOutput:
        """D(T(G(z)))."""
        return self.d_both[1] if self.at_once else self.run_discriminator(self.augmented_fake)

    @property
    def at_once(self) -> bool:
        """Reals and fakes are judged by one pass, which starts half as many kernels as two.

        Not where gradients with respect to pictures are asked for: those of one half would go through the other, too.
        """
        differentiable = self.real_requires_grad or self.fake.requires_grad
        return self.models.discriminator.judges_each_alone and not differentiable

    @cached_property
    def d_both(self) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """D(T(x)) and D(T(G(z))), from one pass."""
        both = self.run_discriminator(torch.cat([self.augmented_real, self.augmented_fake]))
        real, fake = both.logits.chunk(2)
        parts = [(None, None) if t is None else t.chunk(2) for t in (both.classes, both.pixels, both.features)]
        of_real, of_fake = zip(*parts, strict=True)
        return (
            DiscriminatorOutput(real, of_real[0], pixels=of_real[1], features=of_real[2]),
            DiscriminatorOutput(fake, of_fake[0], pixels=of_fake[1], features=of_fake[2]),
        )

    def discriminator_loss(self, objective: Objective) -> Loss:
        """Return what D minimises: of the logits of pictures, or the mean of this and of that of pixels."""
        return mean(
            [objective.discriminator(*both) for both in zip(self.d_real.levels, self.d_fake.levels, strict=True)]
        )

    def generator_loss(self, objective: Objective, top_k: TopK) -> Loss:
        """Return what G minimises, by the same mean; of the pictures' logits only the best may count."""
        pictures, *pixels = self.d_fake.levels
        levels = enumerate([top_k(pictures, self.batch.images_seen), *pixels])
        # The reals are judged only if the objective compares with them.
        return mean([objective.generator(fake, partial(self.real_level, k)) for k, fake in levels])

    def real_level(self, k: int) -> Logits:
        """Return the logits of the reals: of pictures (0), or of pixels (1)."""
        return self.d_real.levels[k]

    def run_discriminator(self, x: Tensor) -> DiscriminatorOutput:
        """Return D's output for images of this micro-batch, with logits in float32."""
        # The labels of the reals, for fakes too: G was told the same ones.
        label = self.batch.label
        output = self.discriminate(x, label if len(x) == len(label) else torch.cat([label, label]))
        pixels = None if output.pixels is None else to_float32(output.pixels)
        return output._replace(logits=to_float32(output.logits), pixels=pixels)

    def gradient(self, output: Tensor, x: Tensor) -> Tensor:
        """Return d sum(output) / dx, itself differentiable; scaled on its way, lest fp16 underflow."""
        # Without autocast, as in backward passes: each operation in its own precision.
        with torch.autocast(x.device.type, enabled=False), ordinary_double_backward():
            (scaled,) = torch.autograd.grad(output.sum() * self.scale, x, create_graph=True)
        return to_float32(scaled) / self.scale
