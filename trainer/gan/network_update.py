"""One update of one network: gradients of its loss, their mean over all micro-batches, the optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from trainer.config.groups import OptimizerSettings
from trainer.core.recording import between_graphs, number
from trainer.core.running_scalars import RunningScalars, finite_only
from trainer.core.step_phases import phase
from trainer.distributed.flat_buffer import FlatBuffer
from trainer.distributed.reduction import Reduction
from trainer.gan.optimizers import Adam, set_rates
from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.penalties import Active
from trainer.networks.spectral_norm import advance_spectral_norm


class NetworkUpdate:
    """Updates G or D: `micro_batch` and `backward` for each micro-batch of this rank's share, then `apply` once.

    Args:
        name: g or d.
        reduction: averages this network's flat buffers, whose scalars are those of the step and of the penalties.
        optimizer, scaler: of this network.
        settings: the optimizer's schedules.
        penalties: those of this network's loss.
        running_scalars: of all penalties; a part of the training state.
        due: tells of a penalty and of the images seen when an update begins whether the update computes it.
    """

    def __init__(
        self,
        name: Literal["g", "d"],
        reduction: Reduction,
        optimizer: Adam,
        scaler: GradScaler,
        settings: OptimizerSettings,
        penalties: Sequence[Active],
        running_scalars: RunningScalars,
        due: Callable[[Active, int], bool],
    ) -> None:
        self.name, self.reduction, self.optimizer, self.scaler = name, reduction, optimizer, scaler
        self.settings, self.penalties, self.is_due = settings, penalties, due
        self.running_scalars = running_scalars
        self.lr = settings.g_lr if name == "g" else settings.d_lr
        self.network, self.statistics = reduction.layout.network, reduction.layout.statistics
        self.one = torch.ones((), device=reduction.layout.device)

    def due(self, images_seen: int) -> list[Active]:
        """Return the penalties that the update which begins at `images_seen` computes."""
        return [active for active in self.penalties if self.is_due(active, images_seen)]

    def micro_batch(self, j: int) -> AbstractContextManager[FlatBuffer]:
        """Accumulate the gradients of micro-batch j in a flat buffer."""
        return self.reduction.micro_batch(j)

    @property
    def scale(self) -> Tensor:
        """fp16's loss scale; 1 elsewhere."""
        return self.scaler.scale(self.one)

    def called(self, against: Collection[str]) -> Callable[..., Any]:
        """Return the network as it is called where gradients with respect to its weights are wanted.

        Args:
            against: the pictures against which penalties take gradients, which are differentiated again. What
                torch.compile makes has no second derivatives, and writes batch statistics that autograd would go back
                to: where there are such pictures, all passes of the update run as they are.
        """
        return self.network if against and self.reduction.layout.with_gradients else self.reduction.network

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients with respect to this network's weights, and compute no others."""
        layout = self.reduction.layout
        # `inputs` keeps the backward pass from computing gradients of the other network's weights.
        self.scaler.scale(loss).backward(inputs=layout.parameters if layout.with_gradients else None)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Compute no gradients with respect to this network's weights inside."""
        self.network.requires_grad_(False)
        try:
            yield
        finally:
            self.network.requires_grad_(True)

    def penalties_of(self, d_pass: DiscriminatorPass, buffer: FlatBuffer) -> Tensor | float:
        """Return the sum of the penalties that are due, each times its weight, and record their values."""
        total: Tensor | float = 0.0
        images_seen, draws = d_pass.batch.images_seen, d_pass.batch.draws
        for active in self.due(images_seen):
            value, measured = active.penalty(d_pass, draws[active.name])
            buffer.record(**{active.name: value}, **measured)
            factor = number(partial(active.factor, decay_images=self.settings.decay_images), images_seen)
            total = total + factor * value
        return total

    def apply(self, images_seen: int) -> dict[str, Tensor]:
        """Average over all micro-batches, step the optimizer, and update buffers and running scalars.

        Returns: the means over the micro-batches; of a penalty that was not due, its last value.
        """
        with phase("exchange"):
            mean = self.reduction.mean()
        with phase("optimizer"):
            return self.apply_mean(mean, images_seen)

    def apply_mean(self, mean: FlatBuffer, images_seen: int) -> dict[str, Tensor]:
        """Step the optimizer by the mean of all micro-batches; the result is that of `apply`."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.reduction.layout.parameters if p.grad is not None]
        means = mean.named_scalars()
        # After unscaling, before the step: the norm that a paper would report. The host does not wait for it.
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.settings.beta2_final is None:
            self.step_optimizer(images_seen)
        else:  # Adam takes betas as plain numbers: in a graph they would stay what they are now
            between_graphs(partial(self.step_between_graphs, mean), images_seen)
        # From all ranks' micro-batches: the running statistics are the same on each, whatever its share was.
        self.statistics.update_running(mean.statistics)
        # Once per step, from the new weights: if each forward pass advanced it, the number of ranks would show.
        advance_spectral_norm(self.network)
        return means | {f"grad_norm_{self.name}": norm} | self.update_scalars(means, images_seen)

    def step_between_graphs(self, mean: FlatBuffer, images_seen: int) -> None:
        """Step the optimizer with the gradients of a buffer: in a replay others may be attached."""
        mean.attach()
        self.step_optimizer(images_seen)

    def step_optimizer(self, images_seen: int) -> None:
        """Step the optimizer."""
        set_rates(self.optimizer, self.lr, images_seen, self.settings)
        # Under fp16 this does nothing where a gradient is not finite, and `update` lowers the scale.
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @torch.no_grad()
    def update_scalars(self, means: dict[str, Tensor], images_seen: int) -> dict[str, Tensor]:
        """Keep the values of the penalties that were due, let these update their running scalars, and return all."""
        for active in self.due(images_seen):
            with finite_only({name: self.running_scalars[name] for name in active.initial_scalars()}):
                for name in active.scalars:
                    self.running_scalars[name].copy_(means[name])
                active.penalty.update_scalars(self.running_scalars, means)
        return {name: self.running_scalars[name].clone() for active in self.penalties for name in active.scalars}
