"""From the shards to the batches of each step, on the device."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from shards.dataset.order import Order
from shards.dataset.stream import Reader, Samples, stream_samples
from trainer.config.config import Config
from trainer.core.randomness import Draws
from trainer.distributed.world import World
from trainer.losses.batch import Batch
from trainer.networks import GENERATORS
from trainer.networks.base import Latent

T = TypeVar("T")


def order_of(config: Config, reader: Reader) -> Order:
    """Return the order in which the run visits the samples of the reader's split."""
    return Order(reader.split.shard_samples, config.seed, config.order_window)


class BatchLoader:
    """The batches of this process, step after step, from any point of the run.

    Args:
        config, world, device: of the run.
        reader: of the training split.
        plan: the folder for the planned and the used samples of each micro-batch, if the settings want them recorded.
    """

    def __init__(self, config: Config, world: World, device: torch.device, reader: Reader, plan: Path) -> None:
        self.config, self.device, self.reader = config, device, reader
        self.record: IO[str] | None = None
        if config.record_samples:
            plan.mkdir(parents=True, exist_ok=True)
            # Whole lines, also of a process that is killed.
            self.record = (plan / f"rank-{world.rank:05d}.jsonl").open("a", buffering=1)
        self.share = world.share(config.micro_batches)
        self.order = order_of(config, reader)

    def plan(self, images_seen: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the planned samples of each of this process's micro-batches, without end."""
        size = self.config.micro_batch_size
        # The order is a function of the position, so a resumed run starts here without reading what it has seen.
        for first in itertools.count(images_seen, self.config.batch_size):
            for j in self.share:
                yield self.order(np.arange(first + j * size, first + (j + 1) * size))

    def steps(self, in_force: Config, images_seen: int, draws: Draws) -> Iterator[list[list[Batch]]]:
        """Yield for each step this rank's micro-batches of each of D's updates.

        Args:
            in_force: the settings that say what the updates draw: a rollback may have changed them.
            images_seen: where to begin.
            draws: of the steps from there on.
        """
        self.random_inputs = RandomInputs(in_force)
        steps = self.build_steps(images_seen, draws)
        for step, lines in prefetch(steps) if self.config.workers else steps:
            if self.record:
                self.record.writelines(lines)
            yield step

    def build_steps(self, images_seen: int, draws: Draws) -> Iterator[tuple[list[list[Batch]], list[str]]]:
        """Yield the micro-batches of each step, and the lines to record of them once they are used."""
        samples = iter(stream_samples(self.reader, self.plan(images_seen), self.config.workers))
        for first in itertools.count(images_seen, self.config.step_images):
            starts = range(first, first + self.config.step_images, self.config.batch_size)
            # The stream is consumed in the order of `plan`: all updates of a step, and within one the micro-batches.
            taken = [[(next(samples), start, j) for j in self.share] for start in starts]
            lines = [record_line(*one) for update in taken for one in update] if self.record else []
            yield [[self.batch(some, draws, start, j) for some, start, j in update] for update in taken], lines

    def batch(self, samples: Samples, draws: Draws, images_seen: int, micro_batch: int) -> Batch:
        """Bring one micro-batch to the device, as the update that starts at `images_seen` wants it."""
        config, size = self.config, len(samples.images)
        images = samples.images
        if config.flip:
            flips = draws.flips(images_seen, micro_batch, size).numpy()
            # On the bytes, on the CPU: before they become floats they are a quarter of the size.
            images[flips] = images[flips, :, ::-1]
        latent, extra = self.random_inputs(draws, torch.from_numpy(samples.labels), images_seen, micro_batch)
        return Batch(
            micro_batch,
            images_seen,
            to_device(images, self.device, config.channels_last),
            latent.map(self.bring),
            {purpose: {name: self.bring(t) for name, t in parts.items()} for purpose, parts in extra.items()},
            # Where it is not 0, a damaged sample was replaced, and the ranks tell rank 0 which.
            int((samples.planned != samples.used).sum()),
        )

    def bring(self, tensor: Tensor) -> Tensor:
        """Bring a draw to the device, without waiting for it there."""
        # Only copies from pinned memory run beside the GPU's work.
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def record_line(samples: Samples, images_seen: int, micro_batch: int) -> str:
    """Return a line on the planned and the used samples of one micro-batch."""
    row = {"planned": samples.planned.tolist(), "used": samples.used.tolist()}
    return json.dumps({"images_seen": images_seen, "micro_batch": micro_batch} | row) + "\n"


def prefetch(source: Iterator[T]) -> Iterator[T]:
    """Make the next item in a thread while the last one is used."""
    # One item ahead is enough: a step takes longer than its batch, or nothing would help.
    with ThreadPoolExecutor(1, "ahead") as pool:
        coming = pool.submit(next, source)
        while True:
            item = coming.result()
            coming = pool.submit(next, source)
            yield item


class RandomInputs:
    """Draws on the CPU all that the updates of one micro-batch want, each part with a key of its own."""

    def __init__(self, config: Config) -> None:
        self.config, self.network = config, config.network
        self.generator, self.augment_pipeline = GENERATORS[config.generator], config.augment_pipeline()
        self.penalties = list(config.penalties.active())

    def __call__(
        self, draws: Draws, label: Int[Tensor, " n"], images_seen: int, micro_batch: int
    ) -> tuple[Latent, dict[str, dict[str, Tensor]]]:
        """Return the latent, and the draws of augmentation and of the penalties that are due."""
        # Each purpose has a key of its own, so a new penalty or augmentation shifts no other draw.
        rng = partial(draws.rng, images_seen=images_seen, micro_batch=micro_batch)
        n, size = len(label), self.network.size
        # The words are parts of the keys: by another name it would be another draw.
        parts = {purpose: self.augment_pipeline.draw(rng(purpose), n) for purpose in ("show real", "show fake")}
        for active in self.penalties:
            if self.config.penalty_due(active, images_seen):
                parts[active.name] = active.penalty.draw(rng(active.name), n, size)
        return self.generator.draw(self.network, rng("z"), label), parts


def to_device(images: npt.NDArray[np.uint8], device: torch.device, channels_last: bool = True) -> Tensor:
    """Bring (n, h, w, 3) bytes to the device, and only there make them (n, 3, h, w) floats in [-1, 1]."""
    pixels = torch.from_numpy(images)
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    # Bytes cross to the device, a quarter of what floats would be.
    pixels = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)  # NHWC in memory is channels_last
    if not channels_last:
        pixels = pixels.contiguous()
    return pixels.float().div_(127.5).sub_(1)
