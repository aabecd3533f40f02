"""One of the two networks of the game, with all that an update of it needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from trainer.config.groups import OptimizerSettings
from trainer.core.running_scalars import Memory, finite_only
from trainer.distributed.flat_buffer import Packet
from trainer.distributed.reduction import Reduction
from trainer.gan.optimizers import set_rates
from trainer.losses.discriminator_pass import Round
from trainer.losses.penalties import Active
from trainer.networks.spectral_norm import advance_spectral_norm


class Player:
    """Collects the gradients of its loss and its penalties, reduces them, and steps.

    Args:
        name: g or d.
        reduction: of its packets; the scalars in them are those of the step and of the penalties.
        optimizer, scaler: its own.
        settings: what the optimizer's schedules are.
        penalties: those of its loss.
        memory: of all penalties; a part of the state.
        update_images: pictures seen from one of its updates to the next.
    """

    def __init__(
        self,
        name: Literal["g", "d"],
        reduction: Reduction,
        optimizer: torch.optim.Optimizer,
        scaler: GradScaler,
        settings: OptimizerSettings,
        penalties: Sequence[Active],
        memory: Memory,
        update_images: int,
    ) -> None:
        self.name, self.reduction, self.optimizer, self.scaler = name, reduction, optimizer, scaler
        self.settings, self.penalties, self.memory, self.update_images = settings, penalties, memory, update_images
        self.lr = settings.g_lr if name == "g" else settings.d_lr
        self.network, self.statistics = reduction.layout.network, reduction.layout.statistics
        self.one = torch.ones((), device=reduction.layout.device)

    def due(self, images_seen: int) -> list[Active]:
        """Return the penalties that the update which begins at `images_seen` computes."""
        return [active for active in self.penalties if active.due(images_seen // self.update_images)]

    def micro_batch(self, j: int) -> AbstractContextManager[Packet]:
        """Collect what micro-batch j gives."""
        return self.reduction.micro_batch(j)

    @property
    def scale(self) -> Tensor:
        """fp16's loss scale; 1 elsewhere."""
        return self.scaler.scale(self.one)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of this network's weights to the packet, and compute no others."""
        layout = self.reduction.layout
        self.scaler.scale(loss).backward(inputs=layout.parameters if layout.with_gradients else None)

    def penalise(self, seen: Round, packet: Packet) -> Tensor | float:
        """Return the sum of the penalties that are due, with their weights, and measure each."""
        total: Tensor | float = 0.0
        images_seen, draws = seen.batch.images_seen, seen.batch.draws
        for active in self.due(images_seen):
            value, measured = active.penalty(seen, draws[active.name])
            packet.record(**{active.name: value}, **measured)
            total = total + active.factor(images_seen, self.settings.decay_images) * value
        return total

    def apply(self, images_seen: int) -> dict[str, Tensor]:
        """Reduce, step the optimizer, and move buffers and memory.

        Returns: the means over the micro-batches; a penalty that was not due stands there with its last value.
        """
        packet = self.reduction.mean()
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.reduction.layout.parameters if p.grad is not None]
        means = packet.named_scalars()
        norm = torch.nn.utils.get_total_norm(gradients)
        set_rates(self.optimizer, self.lr, images_seen, self.settings)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.statistics.update_running(packet.statistics)
        advance_spectral_norm(self.network)
        return means | {f"grad_norm_{self.name}": norm} | self.remember(means, images_seen)

    @torch.no_grad()
    def remember(self, means: dict[str, Tensor], images_seen: int) -> dict[str, Tensor]:
        """Keep what was measured, let the penalties that were due update their memory, and return all of it."""
        for active in self.due(images_seen):
            with finite_only({name: self.memory[name] for name in active.first_memory()}):
                for name in active.scalars:
                    self.memory[name].copy_(means[name])
                active.penalty.remember(self.memory, means)
        return {name: self.memory[name].clone() for active in self.penalties for name in active.scalars}
