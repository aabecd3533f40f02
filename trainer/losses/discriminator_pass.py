"""One round of the game: a micro-batch, what the discriminator is shown of it, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.augment.pipeline import Disguise
from trainer.core.running_scalars import Memory
from trainer.losses.batch import Batch
from trainer.networks.base import Discriminator, Generator, Judgement, wide


@dataclass(frozen=True)
class Game:
    """What stays the same from round to round."""

    generator: Generator
    discriminator: Discriminator
    """The networks themselves: passes through them collect no gradients of their own accord."""
    disguise: Disguise
    memory: Memory

    def adapt(self, scalars: dict[str, Tensor], images_seen: int) -> dict[str, Tensor]:
        """Let the disguise answer to an update of D; return the scalars with what it measures in place of the signs."""
        rest = {name: value for name, value in scalars.items() if name != "sign_real"}
        self.disguise.adapt(self.memory, scalars["sign_real"], images_seen)
        return rest | self.disguise.measured(self.memory)


@dataclass
class Round:
    """Reals and fakes of one micro-batch; what follows from them is computed when it is first asked for.

    Args:
        game: what all rounds share.
        batch, fake: the micro-batch, and what G has painted for it.
        judge: D's pass that counts, through what collects its gradients and statistics.
        scale: fp16's loss scale, 1 elsewhere.
        against_real: gradients against the reals will be asked for.
    """

    game: Game
    batch: Batch
    fake: Float[Tensor, "n 3 h w"]
    judge: Callable[[Tensor, Tensor], Judgement]
    scale: Float[Tensor, ""]
    against_real: bool = False

    @cached_property
    def real(self) -> Float[Tensor, "n 3 h w"]:
        """The reals, or what passes for them, as a leaf."""
        fake, draws = self.fake.detach(), self.batch.draws["show real"]
        real = self.game.disguise.deceive(self.batch.real, fake, draws, self.game.memory)
        return real.detach().requires_grad_(self.against_real)

    @cached_property
    def shown_real(self) -> Float[Tensor, "n 3 h w"]:
        """T(x): what D is shown as reals."""
        return self.game.disguise.show(self.real, self.batch.draws["show real"], self.game.memory)

    @cached_property
    def shown_fake(self) -> Float[Tensor, "n 3 h w"]:
        """T(G(z)): what D is shown as fakes."""
        return self.game.disguise.show(self.fake, self.batch.draws["show fake"], self.game.memory)

    @cached_property
    def on_real(self) -> Judgement:
        """D(T(x))."""
        return self.opinion(self.shown_real)

    @cached_property
    def on_fake(self) -> Judgement:
        """D(T(G(z)))."""
        return self.opinion(self.shown_fake)

    def real_logits(self) -> Float[Tensor, " n"]:
        """Judge the reals for an objective that compares with them."""
        return self.on_real.logits

    def opinion(self, x: Tensor) -> Judgement:
        """Judge pictures of this micro-batch, with logits in float32."""
        judgement = self.judge(x, self.batch.label)
        return judgement._replace(logits=wide(judgement.logits))

    def gradient(self, output: Tensor, x: Tensor) -> Tensor:
        """Return d sum(output) / dx, itself differentiable; scaled on its way, lest fp16 lose it."""
        with torch.autocast(x.device.type, enabled=False):  # as in backward passes: each operation in its own precision
            (scaled,) = torch.autograd.grad(output.sum() * self.scale, x, create_graph=True)
        return wide(scaled) / self.scale
