"""One step of a generative adversarial network: `d_steps` updates of the discriminator, then one of the generator.

Each update goes over this process's share of the M micro-batches of the global batch and uses the mean over all M.
BatchNorm normalises with the statistics of each micro-batch; its running statistics take one update per optimizer step.
The forward passes that count for it are those of the network that is being updated: for D its two passes, over reals
and over fakes, for G the pass that painted the fakes it is judged by. What penalties make besides leaves no trace.
G paints in a context of precision of its own, so that its gradients do not depend on whose update it paints in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from trainer.distributed.flat_buffer import Packet
from trainer.gan.network_update import Player
from trainer.losses.batch import Batch
from trainer.losses.discriminator_pass import Game, Round
from trainer.losses.objectives import Objective, TopK

Scalars = dict[str, Tensor]
D_SCALARS = ("loss_d", "logits_real", "logits_fake", "sign_real", "replaced")
G_SCALARS = ("loss_g", "stop")


class GanStep:
    """Algorithm 1 of Goodfellow et al. 2014, over micro-batches."""

    def __init__(
        self,
        g: Player,
        d: Player,
        objective: Objective,
        top_k: TopK,
        game: Game,
        precision: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.g, self.d, self.objective, self.top_k, self.game, self.precision = g, d, objective, top_k, game, precision

    def __call__(self, updates: Sequence[Sequence[Batch]], stop: Callable[[], bool]) -> Scalars:
        """Update both networks; `updates[k]` is this process's share of D's k-th global batch.

        Returns: the means over the micro-batches, of D's last update, and the norms of the gradients: scalars that
        nobody has waited for. `replaced` is of all updates; `stop` is positive when any process was asked to stop.
        """
        d_scalars: Scalars = {}
        for k, share in enumerate(updates, 1):
            # The graph of a single micro-batch's fakes serves G too; of more it would cost memory, so G runs again.
            scalars, fake = self.update_discriminator(share, keep=k == len(updates) and len(share) == 1)
            d_scalars = scalars | {"replaced": scalars["replaced"] + d_scalars.get("replaced", 0)}
        return d_scalars | self.update_generator(updates[-1], fake, stop)

    def update_discriminator(self, share: Sequence[Batch], keep: bool = False) -> tuple[Scalars, Tensor | None]:
        """Minimise L_D(D(T(x)), D(T(G(z)))) and D's penalties over D."""
        for batch in share:
            with self.d.micro_batch(batch.micro_batch) as packet:
                with self.precision(), torch.set_grad_enabled(keep):
                    fake = self.paint(batch)
                with self.precision():
                    seen = self.d_round(batch, fake.detach())
                    real_logits, fake_logits = seen.on_real.logits, seen.on_fake.logits
                    loss = self.objective.discriminator(real_logits, fake_logits)
                    total = loss + self.penalties(self.d, seen, packet)
                self.d.backward(total)
                packet.record(loss_d=loss, logits_real=real_logits.mean(), logits_fake=fake_logits.mean())
                packet.record(sign_real=real_logits.sign().mean(), replaced=batch.replaced)
        return self.game.adapt(self.d.apply(share[0].images_seen), share[0].images_seen), fake if keep else None

    def update_generator(self, share: Sequence[Batch], fake: Tensor | None, stop: Callable[[], bool]) -> Scalars:
        """Minimise L_G(D(T(G(z)))) and G's penalties over G."""
        with frozen(self.d.network):
            for batch in share:
                with self.g.micro_batch(batch.micro_batch) as packet:
                    with self.precision():
                        painted = self.paint(batch) if fake is None else fake
                    with self.precision():
                        seen = self.g_round(batch, painted)
                        best = self.top_k(seen.on_fake.logits, batch.images_seen)
                        loss = self.objective.generator(best, seen.real_logits)
                        total = loss + self.penalties(self.g, seen, packet)
                    self.g.backward(total)
                    packet.record(loss_g=loss, stop=float(stop()))
        return self.g.apply(share[0].images_seen)

    def paint(self, batch: Batch) -> Tensor:
        """G(z)."""
        self.g.statistics.restart()
        fake: Tensor = self.g.reduction.network(batch.latent)
        return fake

    def d_round(self, batch: Batch, fake: Tensor) -> Round:
        """Let D judge for its own sake: gradients of its weights and its statistics count."""
        against = {name for active in self.d.due(batch.images_seen) for name in active.penalty.against}
        fake.requires_grad_("fake" in against)
        return Round(self.game, batch, fake, self.d.reduction.network, self.d.scale, "real" in against)

    def g_round(self, batch: Batch, fake: Tensor) -> Round:
        """Let D judge for the generator's sake: no statistics, no weights' gradients."""
        self.d.statistics.restart()
        return Round(self.game, batch, fake, self.d.network, self.g.scale)

    def penalties(self, player: Player, seen: Round, packet: Packet) -> Tensor | float:
        """Return the penalties of a round; the passes that they make besides leave no trace."""
        with self.g.statistics.paused(), self.d.statistics.paused():
            return player.penalise(seen, packet)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Spend nothing on the gradients of the network's weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
