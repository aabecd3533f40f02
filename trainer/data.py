"""From the shards to the batches of each step, on the device."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from shards.order import Order
from shards.stream import Reader, Samples, stream
from trainer.config import Config
from trainer.randomness import Draws
from trainer.world import World


@dataclass(frozen=True)
class Batch:
    """One micro-batch on the device, with every draw that its updates need."""

    micro_batch: int
    real: Float[Tensor, "n 3 h w"]
    """Pictures in [-1, 1]."""
    label: Int[Tensor, " n"]
    """Classes, -1: none."""
    z: Float[Tensor, "n z"]
    """The generator's noise."""
    replaced: int
    """How many planned samples were damaged."""


def order_of(config: Config, reader: Reader) -> Order:
    """Return the order in which the run visits the samples of the reader's split."""
    return Order(reader.split.shard_samples, config.seed, config.order_window)


class Feed:
    """The batches of this process, step after step, from any point of the run.

    Args:
        config, world, device: of the run.
        reader: of the training split.
        record: the folder in which to note each micro-batch's planned and used samples; None: nowhere.
    """

    def __init__(self, config: Config, world: World, device: torch.device, reader: Reader, record: Path | None) -> None:
        self.config, self.device, self.reader = config, device, reader
        self.record: IO[str] | None = None
        if record:
            record.mkdir(parents=True, exist_ok=True)
            self.record = (record / f"rank-{world.rank:05d}.jsonl").open("a", buffering=1)
        self.share = world.share(config.micro_batches)
        self.order = order_of(config, reader)

    def plan(self, images_seen: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the planned samples of each of this process's micro-batches, without end."""
        size = self.config.micro_batch_size
        for first in itertools.count(images_seen, self.config.batch_size):
            for j in self.share:
                yield self.order(np.arange(first + j * size, first + (j + 1) * size))

    def steps(self, images_seen: int, draws: Draws) -> Iterator[list[list[Batch]]]:
        """Yield for each step this process's micro-batches of each of D's updates."""
        samples = iter(stream(self.reader, self.plan(images_seen), self.config.workers))
        for first in itertools.count(images_seen, self.config.step_images):
            starts = range(first, first + self.config.step_images, self.config.batch_size)
            yield [[self.batch(next(samples), draws, start, j) for j in self.share] for start in starts]

    def batch(self, samples: Samples, draws: Draws, images_seen: int, micro_batch: int) -> Batch:
        """Bring one micro-batch to the device, as the update that starts at `images_seen` wants it."""
        config, size = self.config, len(samples.images)
        if self.record:
            row = {"planned": samples.planned.tolist(), "used": samples.used.tolist()}
            self.record.write(json.dumps({"images_seen": images_seen, "micro_batch": micro_batch} | row) + "\n")
        images = samples.images
        if config.flip:
            flips = draws.flips(images_seen, micro_batch, size).numpy()
            images[flips] = images[flips, :, ::-1]
        return Batch(
            micro_batch,
            to_device(images, self.device, config.channels_last),
            torch.from_numpy(samples.labels).to(self.device, non_blocking=True),
            draws.noise(images_seen, micro_batch, size, config.network.z_dim).to(self.device, non_blocking=True),
            int((samples.planned != samples.used).sum()),
        )


def to_device(images: npt.NDArray[np.uint8], device: torch.device, channels_last: bool = True) -> Tensor:
    """Bring (n, h, w, 3) bytes to the device, and only there make them (n, 3, h, w) floats in [-1, 1]."""
    pixels = torch.from_numpy(images)
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    pixels = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)  # NHWC in memory is channels_last
    if not channels_last:
        pixels = pixels.contiguous()
    return pixels.float().div_(127.5).sub_(1)
