"""How much arithmetic a step takes, without doing it: tensors without data go through one or two micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import lcm
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from trainer.config.config import Config
from trainer.core.randomness import Draws, philox
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.batches import RandomInputs
from trainer.gan.step import GanStep
from trainer.losses.batch import Batch
from trainer.networks import build_generator


class Flops(TorchDispatchMode):
    """Adds up the arithmetic of convolutions and matrix products inside; a multiplication with its addition is two.

    It is FlopCounterMode's, which itself does not go with gradients against pictures, and counts the gradient of the
    weights of a convolution in groups as if it had none.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operator = func.overloadpacket
        if operator is torch.ops.aten.convolution_backward:
            *rest, groups, (of_x, of_weight, _) = args
            self.total += flop_registry[operator](*rest, groups, (of_x, False, False), out_val=out)
            self.total += flop_registry[operator](*rest, groups, (False, of_weight, False), out_val=out) // groups
        elif operator in flop_registry:
            self.total += flop_registry[operator](*args, **(kwargs or {}), out_val=out)
        return out


@contextmanager
def without_data() -> Iterator[None]:
    """Let tensors have shapes only, inside."""
    with FakeTensorMode(allow_non_fake_inputs=True), mock.patch.object(nn.Module, "to"):  # which they cannot do
        yield


def penalty_cycle(config: Config) -> int:
    """Return the fewest steps in which every penalty is due as often as it is in the long run."""
    return lcm(*(active.weighted.every for active in config.penalties.active()))


def penalties_due(step: GanStep, config: Config, images_seen: int) -> tuple[str, ...]:
    """Return the penalties of the step that begins at `images_seen`, by which steps differ."""
    starts = range(images_seen, images_seen + config.step_images, config.batch_size)
    of_d = [active.name for start in starts for active in step.d.due(start)]
    return *of_d, *(active.name for active in step.g.due(images_seen))


def flops_per_image(config: Config) -> float:
    """Return the arithmetic of training per real picture that D sees, averaged over the penalties' rhythm.

    Updates of both networks, backward and double backward included; augmentation, optimizer and averages are not
    counted. What the labels are must be settled.
    """
    # All pictures cost the same but where there is one micro-batch: then D's fakes serve G too.
    config = replace(config, batch_size=min(config.micro_batches, 2) * config.micro_batch_size, compile=False)
    with without_data():
        state = create_state(config, "flops", torch.device("cpu"), draw=False)
        step = assemble_step(config, state, reduce_exactly(config, World()), nullcontext)
        known: dict[tuple[str, ...], int] = {}
        total, steps = 0, penalty_cycle(config)
        for number in range(steps):
            images_seen = state.images_seen = number * config.step_images
            kind = penalties_due(step, config, images_seen)
            # Steps with the same penalties cost the same: each kind is counted once.
            if kind not in known:
                with Flops() as counted:
                    step(empty_batches(config, images_seen), lambda: False)
                known[kind] = counted.total
            total += known[kind]
    return total / steps / config.step_images


def generator_flops(config: Config) -> float:
    """Return the arithmetic of generating one picture. What the labels are must be settled."""
    n, network = config.micro_batch_size, config.network
    with without_data(), torch.no_grad():
        generator = build_generator(config.generator, network)
        latent = generator.draw(network, philox("flops"), torch.zeros(n, network.labels.values))
        with Flops() as counted:
            generator(latent)
    return float(counted.total) / n


def empty_batches(config: Config, images_seen: int) -> list[list[Batch]]:
    """Return the batches of a step, of pictures and draws that have shapes only."""
    n = config.micro_batch_size
    label = torch.zeros(n, config.network.labels.values)
    real = torch.zeros(n, *config.network.data_shape).contiguous(memory_format=torch.channels_last)
    random_inputs = RandomInputs(config)

    def batch(start: int, micro_batch: int) -> Batch:
        latent, draws = random_inputs(Draws(0, 0), label, start, micro_batch)
        return Batch(micro_batch, start, real, latent, draws, 0)

    starts = range(images_seen, images_seen + config.step_images, config.batch_size)
    return [[batch(start, j) for j in range(config.micro_batches)] for start in starts]
