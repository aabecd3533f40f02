"""Micro-batches of noise in place of pictures, drawn as the trainer draws them."""

from __future__ import annotations

import torch

from trainer.config.config import Config
from trainer.core.randomness import Draws, philox
from trainer.gan.batches import RandomInputs
from trainer.losses.batch import Batch


def made_batches(config: Config, seed: int = 0, images_seen: int = 0) -> list[Batch]:
    """Return every micro-batch of the update that begins at `images_seen`; classes go round."""
    n = config.micro_batch_size
    batches, drawer = [], RandomInputs(config)
    for j in range(config.micro_batches):
        rng = philox(seed, "made", images_seen, j)
        real = torch.from_numpy(rng.uniform(-1, 1, (n, *config.network.data_shape))).float()
        label = torch.arange(n) % config.network.classes if config.network.classes else torch.full((n,), -1)
        latent, draws = drawer(Draws(seed, 0), label, images_seen, j)
        batches.append(Batch(j, images_seen, real, latent, draws, 0))
    return batches
