"""Train one trial: the trainer's own step, on data that is drawn instead of read from shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice

import numpy as np
import torch

from trainer.benchmark.protocol import Protocol, Samples
from trainer.config.config import Config
from trainer.core.iteration import batched
from trainer.core.randomness import Draws, philox
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.batches import RandomInputs
from trainer.gan.optimizers import update_average
from trainer.gan.state import TrainState
from trainer.losses.batch import Batch
from trainer.networks.base import Latent, named_weights
from trainer.sampling.sampler import Sampler

CPU = torch.device("cpu")


def draw_real(protocol: Protocol, config: Config, images_seen: int, micro_batch: int) -> torch.Tensor:
    """Draw the reals of one micro-batch, which depend only on the seed and their place."""
    return protocol.draw(philox(config.seed, "real", images_seen, micro_batch), config.micro_batch_size)


def benchmark_batches(protocol: Protocol, config: Config) -> Iterator[list[list[Batch]]]:
    """Yield for each step the micro-batches of each of D's updates, without end."""
    random_inputs, draws = RandomInputs(config), Draws(config.seed, 0)
    # The protocols have no classes for the generator.
    unknown = torch.full((config.micro_batch_size,), -1)

    def batch(images_seen: int, j: int) -> Batch:
        latent, extra = random_inputs(draws, unknown, images_seen, j)
        return Batch(j, images_seen, draw_real(protocol, config, images_seen, j), latent, extra, 0)

    first = 0
    while True:
        starts = range(first, first + config.step_images, config.batch_size)
        yield [[batch(start, j) for j in range(config.micro_batches)] for start in starts]
        first += config.step_images  # the number of images seen keys all random draws of a step


def never_stop() -> bool:
    """Return False: a trial is never stopped to save; a killed one begins again."""
    return False


def train_benchmark(protocol: Protocol, config: Config, steps: int) -> TrainState:
    """Train for so many updates of G; the arguments determine every bit of the state."""
    state = create_state(config, "", CPU)
    # One process, without mixed precision: nothing to synchronize, so the context of the backward pass is empty.
    step = assemble_step(config, state, reduce_exactly(config, World()), nullcontext)
    weights = [weight.detach() for _, weight in named_weights(state.generator)]
    for batches in islice(benchmark_batches(protocol, config), steps):
        step(batches, never_stop)
        state.images_seen += config.step_images
        # As Replica.step does in training.
        update_average(list(state.ema.values()), weights, config.step_images, state.images_seen, config.optimizer)
    return state


@torch.no_grad()
def generate_samples(config: Config, state: TrainState, num: int) -> Samples:
    """Generate samples with the averaged generator; sample i depends only on the weights, the seed and i."""
    sampler = Sampler(config, CPU)
    sampler.load(state.ema)
    latents = (sampler.latent(i, (config.seed, "benchmark")) for i in range(num))
    generated = [
        sampler.generator(sampler.bring(Latent.cat(sampler.padded(group))))[: len(group)]
        for group in batched(latents, config.micro_batch_size)
    ]
    # Points as they are: `generate` would make bytes of them.
    return torch.cat(generated).numpy().astype(np.float32)
