"""One step of a generative adversarial network: `d_steps` updates of the discriminator, then one of the generator.

Each update goes over this process's share of the M micro-batches of the global batch and uses the mean over all M.
BatchNorm normalises with the statistics of each micro-batch; its running statistics take one update per optimizer step.
The forward passes that count for it are those of the network that is being updated: for D its two passes, over reals
and over fakes, for G the pass that painted the fakes it is judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from trainer.data import Batch
from trainer.objectives import Objective
from trainer.reduction import Reduction

D_SCALARS = ("loss_d", "logits_real", "logits_fake", "replaced")
G_SCALARS = ("loss_g", "stop")


class GanStep:
    """Algorithm 1 of Goodfellow et al. 2014, over micro-batches."""

    def __init__(
        self,
        g: Reduction,
        d: Reduction,
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
        scalers: tuple[GradScaler, GradScaler],
        objective: Objective,
        autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.g, self.d, self.objective, self.autocast = g, d, objective, autocast
        self.g_optimizer, self.d_optimizer = optimizers
        self.g_scaler, self.d_scaler = scalers

    def __call__(self, updates: Sequence[Sequence[Batch]], stop: Callable[[], bool]) -> dict[str, Tensor]:
        """Update both networks; `updates[k]` is this process's share of D's k-th global batch.

        Returns: the means over the micro-batches, and the norms of the gradients: scalars that nobody has waited for.
        `stop` is positive when any process was asked to stop.
        """
        for share in updates:
            d_scalars, fake = self.update_discriminator(share)
        return d_scalars | self.update_generator(updates[-1], fake, stop)

    def update_discriminator(self, share: Sequence[Batch]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Minimise L_D(D(x), D(G(z))) over D."""
        for batch in share:
            with self.d.micro_batch(batch.micro_batch) as packet:
                with self.autocast():
                    fake = self.paint(batch.z)
                    real_logits, fake_logits = self.d.network(batch.real).float(), self.d.network(fake.detach()).float()
                    loss = self.objective.discriminator(real_logits, fake_logits)
                self.d_scaler.scale(loss).backward()
                packet.record(loss_d=loss, logits_real=real_logits.mean(), logits_fake=fake_logits.mean())
                packet.record(replaced=batch.replaced)
        # The graph of a single micro-batch's fakes serves G too; of more it would cost memory, so G runs again.
        return self.apply(self.d, self.d_optimizer, self.d_scaler, "grad_norm_d"), fake if len(share) == 1 else None

    def update_generator(
        self, share: Sequence[Batch], fake: Tensor | None, stop: Callable[[], bool]
    ) -> dict[str, Tensor]:
        """Minimise L_G(D(G(z))) over G."""
        with frozen(self.d.layout.network):
            for batch in share:
                with self.g.micro_batch(batch.micro_batch) as packet:
                    with self.autocast():
                        loss = self.objective.generator(self.judge(self.paint(batch.z) if fake is None else fake))
                    self.g_scaler.scale(loss).backward()
                    packet.record(loss_g=loss, stop=float(stop()))
        return self.apply(self.g, self.g_optimizer, self.g_scaler, "grad_norm_g")

    def paint(self, z: Tensor) -> Tensor:
        """G(z)."""
        self.g.layout.statistics.restart()
        fake: Tensor = self.g.network(z)
        return fake

    def judge(self, x: Tensor) -> Tensor:
        """D(x) for the generator's sake: no statistics, no weights' gradients."""
        self.d.layout.statistics.restart()
        logits: Tensor = self.d.layout.network(x)
        return logits.float()

    def apply(
        self, of: Reduction, optimizer: torch.optim.Optimizer, scaler: GradScaler, norm: str
    ) -> dict[str, Tensor]:
        """Reduce, step the optimizer, and move BatchNorm's running statistics."""
        packet = of.mean()
        scaler.unscale_(optimizer)
        gradients = [p.grad for p in of.layout.parameters if p.grad is not None]
        scalars = packet.named_scalars() | {norm: torch.nn.utils.get_total_norm(gradients)}
        scaler.step(optimizer)
        scaler.update()
        of.layout.statistics.update_running(packet.statistics)
        return scalars


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Spend nothing on the gradients of the network's weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
