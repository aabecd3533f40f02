"""One step of a generative adversarial network: `d_steps` updates of the discriminator D, then one of the generator G.

The global batch of an update is split into M micro-batches, and the ranks share them. An update goes over this rank's
share and uses the mean over all M. A micro-batch is also the unit of BatchNorm: forward passes normalise with its
statistics, and the running statistics are updated once per optimizer step, from the passes of the network that is
being updated: for D its passes over reals and fakes, for G the pass that generates the fakes.

Backward passes run in the caller's thread. On a GPU autograd would take a thread of its own. That counts what it
records since its own start, and the order of a gradient's sum goes by this count: where a penalty differentiates a
backward pass, the bits would depend on all that the process has computed before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from trainer.distributed.flat_buffer import FlatBuffer
from trainer.gan.network_update import NetworkUpdate
from trainer.losses.batch import Batch, Share
from trainer.losses.discriminator_pass import DiscriminatorPass, Models
from trainer.losses.objectives import Objective, TopK

Scalars = dict[str, Tensor]
Stop = Callable[[], float | Tensor]
D_SCALARS = ("loss_d", "logits_real", "logits_fake", "sign_real", "replaced")
G_SCALARS = ("loss_g", "stop")


class GanStep:
    """Algorithm 1 of Goodfellow et al. 2014, over micro-batches."""

    def __init__(
        self,
        g: NetworkUpdate,
        d: NetworkUpdate,
        objective: Objective,
        top_k: TopK,
        models: Models,
        autocast: Callable[[], AbstractContextManager[None]],
        g_batches: int = 1,
    ) -> None:
        self.g, self.d, self.objective, self.top_k = g, d, objective, top_k
        self.models, self.autocast, self.g_batches = models, autocast, g_batches

    def __call__(self, updates: Sequence[Share], stop: Stop) -> Scalars:
        """Update both networks; `updates[k]` is this rank's share of the global batch of D's k-th update.

        Returns: means over the micro-batches, of D's last update and of G's, and norms of the gradients, on the
        device. `replaced` is summed over all updates; `stop` is positive when any rank was asked to stop.
        """
        d_scalars, g_share = Scalars(), Batch.join(updates[-self.g_batches :])
        with torch.autograd.set_multithreading_enabled(False):
            for k, share in enumerate(updates, 1):
                scalars, fake = self.update_discriminator(share, g_share if k == len(updates) else ())
                d_scalars = scalars | {"replaced": scalars["replaced"] + d_scalars.get("replaced", 0)}
            return d_scalars | self.update_generator(g_share, fake, stop)

    def update_discriminator(self, share: Share, g_share: Share = ()) -> tuple[Scalars, Tensor]:
        """Minimise L_D(D(T(x)), D(T(G(z)))) plus D's penalties over D; T augments. G's fakes are left."""
        # G reuses the graph of a single micro-batch of fakes; of more it would cost memory, so G runs again.
        keep_graph = len(share) == 1 and g_share is share
        for batch in share:
            with self.d.micro_batch(batch.micro_batch) as buffer:
                # Two autocast contexts: a cast of G's weights shared with a penalty would sum their gradients in bf16.
                with self.autocast(), torch.set_grad_enabled(keep_graph):
                    fake = self.generate(batch)
                with self.autocast():
                    d_pass = self.pass_for_discriminator(batch, fake.detach())
                    real_logits, fake_logits = d_pass.d_real.logits, d_pass.d_fake.logits
                    loss = d_pass.discriminator_loss(self.objective)
                    total = loss + self.penalties(self.d, d_pass, buffer)
                self.d.backward(total)
                buffer.record(loss_d=loss, logits_real=real_logits.mean(), logits_fake=fake_logits.mean())
                buffer.record(sign_real=real_logits.sign().mean(), replaced=batch.replaced)
        if g_share and not keep_graph:
            with self.autocast():
                fake = self.generate(g_share[0])  # D's gradients travel meanwhile
        return self.models.update_p(self.d.apply(share[0].images_seen), share[0].images_seen), fake

    def update_generator(self, share: Share, fake: Tensor | None, stop: Stop) -> Scalars:
        """Minimise L_G(D(T(G(z)))) plus G's penalties over G; `fake` is of the first micro-batch."""
        with self.d.frozen():
            for batch in share:
                with self.g.micro_batch(batch.micro_batch) as buffer:
                    with self.autocast():
                        generated, fake = self.generate(batch) if fake is None else fake, None
                    with self.autocast():
                        d_pass = self.pass_for_generator(batch, generated)
                        loss = d_pass.generator_loss(self.objective, self.top_k)
                        total = loss + self.penalties(self.g, d_pass, buffer)
                    self.g.backward(total)
                    buffer.record(loss_g=loss, stop=stop())
        return self.g.apply(share[0].images_seen)

    def generate(self, batch: Batch) -> Tensor:
        """Return G(z); the statistics of this pass count for G."""
        self.g.statistics.restart()
        fake: Tensor = self.g.reduction.network(batch.latent)
        return fake

    def pass_for_discriminator(self, batch: Batch, fake: Tensor) -> DiscriminatorPass:
        """Return the pass of D whose gradients with respect to D's weights, and whose statistics, count."""
        against = {name for active in self.d.due(batch.images_seen) for name in active.penalty.against}
        fake.requires_grad_("fake" in against)
        return DiscriminatorPass(self.models, batch, fake, self.d.called(against), self.d.scale, "real" in against)

    def pass_for_generator(self, batch: Batch, fake: Tensor) -> DiscriminatorPass:
        """Return the pass of D that only G learns from: D's weights get no gradients, its statistics do not count."""
        self.d.statistics.restart()
        return DiscriminatorPass(self.models, batch, fake, self.d.network, self.g.scale)

    def penalties(self, update: NetworkUpdate, d_pass: DiscriminatorPass, buffer: FlatBuffer) -> Tensor | float:
        """Return the sum of the penalties that are due; statistics of forward passes they make do not count."""
        with self.g.statistics.paused(), self.d.statistics.paused():
            return update.penalties_of(d_pass, buffer)
