"""From the shards to the batches of each step, on the device."""

from __future__ import annotations

import itertools
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int, Num
from torch import Tensor

from shards.dataset.order import Order
from shards.dataset.stream import Reader, Samples, stream_planned
from trainer.config.config import Config
from trainer.core.randomness import Draws
from trainer.core.step_phases import phase
from trainer.distributed.collective import gather_values
from trainer.distributed.world import World
from trainer.gan.staging import Staged, staging_for
from trainer.losses.batch import Batch
from trainer.networks import GENERATORS
from trainer.networks.base import Latent

MOST_WORKERS = 16  # more threads would only wait for each other, and for Python's lock


@dataclass(frozen=True)
class Planned:
    """One micro-batch of the update that begins at `images_seen`."""

    images_seen: int
    micro_batch: int
    samples: npt.NDArray[np.int64]  # their numbers, (n,)


@dataclass(frozen=True)
class Prepared:
    """A micro-batch on the host."""

    planned: Planned
    samples: Samples
    latent: Latent
    draws: Mapping[str, Mapping[str, Tensor]]
    staged: Staged
    """The pictures as bytes, the tensors of the latent, and the draws, in this order."""

    def record_line(self) -> str:
        """Return a line on its planned and its used samples."""
        where = {"images_seen": self.planned.images_seen, "micro_batch": self.planned.micro_batch}
        return json.dumps(where | {"planned": self.samples.planned.tolist(), "used": self.samples.used.tolist()}) + "\n"


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
        self.config, self.reader = config, reader
        self.record: IO[str] | None = None
        if config.record_samples:
            plan.mkdir(parents=True, exist_ok=True)
            # Whole lines, also of a process that is killed.
            self.record = (plan / f"rank-{world.rank:05d}.jsonl").open("a", buffering=1)
        self.share = world.share(config.micro_batches)
        self.order, self.staging, self.workers = (
            order_of(config, reader),
            staging_for(device),
            workers_of(config, world),
        )

    def plan(self, images_seen: int) -> Iterator[Planned]:
        """Yield each of this process's micro-batches, without end."""
        size = self.config.micro_batch_size
        # The order is a function of the position, so a resumed run starts here without reading what it has seen.
        until = self.config.images_to_see(self.reader.split.samples)
        for first in itertools.count(images_seen, self.config.batch_size):
            self.reader.follow(self.order, first, until)
            for j in self.share:
                samples = self.order(np.arange(first + j * size, first + (j + 1) * size))
                self.reader.announce(samples)
                yield Planned(first, j, samples)

    def steps(self, in_force: Config, images_seen: int, draws: Draws) -> Iterator[list[list[Batch]]]:
        """Yield for each step this rank's micro-batches of each of D's updates.

        Args:
            in_force: the settings that say what the updates draw: a rollback may have changed them.
            images_seen: where to begin.
            draws: of the steps from there on.
        """
        make = partial(self.prepare, RandomInputs(in_force), draws)
        # All updates of a step, and within one the micro-batches, in the order of `plan`.
        prepared = iter(stream_planned(make, self.plan(images_seen), self.workers))
        while True:
            with phase("data"):
                step = [[next(prepared) for _ in self.share] for _ in range(self.config.d_steps)]
                if self.record:
                    self.record.writelines(one.record_line() for update in step for one in update)
                brought = [[self.bring(one) for one in update] for update in step]
            yield brought

    def prepare(self, random_inputs: RandomInputs, draws: Draws, planned: Planned) -> Prepared:
        """Read, decode and draw one micro-batch on the host, in any thread."""
        samples = self.reader(planned.samples)
        images = samples.images
        if self.config.flip:
            flips = draws.flips(planned.images_seen, planned.micro_batch, len(images)).numpy()
            # On the bytes, on the CPU: before they become floats they are a quarter of the size.
            images[flips] = images[flips, :, ::-1]
        label = torch.from_numpy(samples.labels)
        with phase("draws"):
            latent, extra = random_inputs(draws, label, planned.images_seen, planned.micro_batch)
        drawn = [tensor for parts in extra.values() for tensor in parts.values()]
        staged = self.staging.stage([torch.from_numpy(images), *latent.tensors(), *drawn])
        return Prepared(planned, samples, latent, extra, staged)

    def bring(self, prepared: Prepared) -> Batch:
        """Bring one micro-batch to the device."""
        pixels, *tensors = self.staging.bring(prepared.staged)
        there = iter(tensors)
        latent = prepared.latent.map(lambda _: next(there))
        extra = {purpose: {name: next(there) for name in parts} for purpose, parts in prepared.draws.items()}
        samples = prepared.samples
        return Batch(
            prepared.planned.micro_batch,
            prepared.planned.images_seen,
            normalise(pixels, self.config.channels_last),
            latent,
            extra,
            # Where it is not 0, a damaged sample was replaced, and the ranks tell rank 0 which.
            int((samples.planned != samples.used).sum()),
        )


class RandomInputs:
    """Draws on the CPU all that the updates of one micro-batch want, each part with a key of its own."""

    def __init__(self, config: Config) -> None:
        self.config, self.network = config, config.network
        self.generator, self.augment_pipeline = GENERATORS[config.generator], config.augment_pipeline()
        self.penalties = list(config.penalties.active())

    def __call__(
        self, draws: Draws, label: Num[Tensor, "n ..."], images_seen: int, micro_batch: int
    ) -> tuple[Latent, dict[str, dict[str, Tensor]]]:
        """Return the latent, and the draws of augmentation and of the penalties that are due."""
        # Each purpose has a key of its own, so a new penalty or augmentation shifts no other draw.
        rng = partial(draws.rng, images_seen=images_seen, micro_batch=micro_batch)
        n = len(label)
        # The words are parts of the keys: by another name it would be another draw.
        parts = {purpose: self.augment_pipeline.draw(rng(purpose), n) for purpose in ("show real", "show fake")}
        for active in self.penalties:
            if self.config.penalty_due(active, images_seen):
                parts[active.name] = active.penalty.draw(rng(active.name), n, self.network)
        return self.generator.draw(self.network, rng("z"), label), parts


def normalise(pixels: Int[Tensor, "n h w c"], channels_last: bool = True) -> Tensor:
    """Make (n, c, h, w) floats in [-1, 1] of bytes, where they are; the colours of RGBA are multiplied by alpha."""
    # On the device: bytes are a quarter of what floats would be on the way.
    pixels = pixels.permute(0, 3, 1, 2)  # NHWC in memory is channels_last
    if not channels_last:
        pixels = pixels.contiguous()
    values = pixels.float()
    if pixels.shape[1] == 4:
        # Premultiplied: a colour that nobody sees is no information, and networks interpolate between pixels.
        values = torch.cat([values[:, :3] * (values[:, 3:] / 255), values[:, 3:]], 1)
        values = values.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return values.div_(127.5).sub_(1)


def workers_of(config: Config, world: World) -> int:
    """Return how many threads prepare micro-batches: those of the settings, or one for each core but one of a rank.

    A core counts as a part of one for each rank of the machine that may use it; all ranks find that out together.
    """
    if config.workers is not None:
        return config.workers
    mine = platform.node(), os.sched_getaffinity(0)
    beside = [cores for host, cores in gather_values(world, mine) if host == mine[0]]
    own = sum(1 / sum(core in cores for cores in beside) for core in mine[1])
    return min(max(round(own) - 1, 0), MOST_WORKERS)
