"""Painting: from the averaged generator to pictures.

The moving average has weights but no BatchNorm statistics of its own, and those of the raw weights do not fit it. So
they are computed for it, from keyed noise, whenever it paints: "standing statistics", as Brock et al. 2019
(arXiv:1809.11096) call them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from shards.order import permute
from shards.stream import Reader
from trainer.config import Config
from trainer.networks import ARCHITECTURES
from trainer.networks.batch_norm import BatchStatistics
from trainer.randomness import normal, philox

Pictures = npt.NDArray[np.uint8]  # (n, h, w, 3)

STATISTICS_BATCHES = 16
GAP = 4  # pixels between the reals and the fakes of a grid


class Painter:
    """The generator as it is used after training: averaged weights, evaluation mode.

    Args:
        config: of the run.
        device: where to paint.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.generator = ARCHITECTURES[config.architecture].generator(config.network).to(device)
        self.generator.requires_grad_(False)
        self.statistics = BatchStatistics(self.generator, device)

    def load(self, ema: Mapping[str, Tensor]) -> None:
        """Take over averaged weights, and compute the batch statistics that belong to them."""
        for name, parameter in self.generator.named_parameters():
            parameter.copy_(ema[name])
        self.generator.train()
        self.statistics.restart()
        size, z_dim = self.config.micro_batch_size, self.config.network.z_dim
        for k in range(STATISTICS_BATCHES):
            self.generator(normal(philox(self.config.seed, "standing statistics", k), size, z_dim).to(self.device))
        self.statistics.adopt()
        self.generator.eval()

    def paint(self, num: int, *key: int | str) -> Pictures:
        """Paint `num` pictures; picture i is a function of the weights, the key and i alone."""
        painted = []
        for first in range(0, num, self.config.micro_batch_size):
            rows = range(first, min(num, first + self.config.micro_batch_size))
            z = torch.cat([normal(philox(*key, i), 1, self.config.network.z_dim) for i in rows])
            painted.append(to_pictures(self.generator(z.to(self.device))))
        return np.concatenate(painted)


def to_pictures(x: Tensor) -> Pictures:
    """Turn (n, 3, h, w) in [-1, 1] into bytes, rounding to the nearest."""
    return x.float().mul(127.5).add(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def real_pictures(reader: Reader, num: int, seed: int) -> Pictures:
    """Return `num` real pictures, the same ones for the same seed; they repeat when there are fewer."""
    samples = reader.split.samples
    return reader(permute(np.arange(num) % samples, samples, seed, "reals")).images


def grid(pictures: Pictures, columns: int) -> Pictures:
    """Lay pictures out in rows: (rows * h, columns * w, 3), black where they end."""
    n, h, w, c = pictures.shape
    rows = -(-n // columns)
    padded = np.zeros((rows * columns, h, w, c), dtype=np.uint8)
    padded[:n] = pictures
    return padded.reshape(rows, columns, h, w, c).swapaxes(1, 2).reshape(rows * h, columns * w, c)


def beside(real: Pictures, fake: Pictures, columns: int) -> Image.Image:
    """Return one picture: reals on the left, fakes on the right."""
    left, right = grid(real, columns), grid(fake, columns)
    return Image.fromarray(np.concatenate([left, np.full((len(left), GAP, 3), 255, np.uint8), right], axis=1))
