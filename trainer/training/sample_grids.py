"""What is measured of the generator: sample grids, their distance to the data, and the collapse monitor's evidence."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from shards.atomic_files import write_atomically
from shards.dataset.stream import Reader, Samples
from trainer.config.config import Config
from trainer.runs.run_folder import RunFolder
from trainer.runs.run_labels import read_labels
from trainer.sampling.sampler import Images, Sampler, real_and_fake_grid, real_samples

if TYPE_CHECKING:
    from trainer.collapse.collapse_metrics import CollapseMetrics
    from trainer.metrics.sliced_wasserstein import SlicedWasserstein

log = logging.getLogger(__name__)

GRID = 64  # images on each side of the sample grid
DISTANCE = 512  # images on each side of the sliced Wasserstein distance


Subject = Literal["samples", "collapse", "alarm"]


@dataclass(frozen=True)
class Request:
    """What is to be measured, of a run that has seen so many images and has been rolled back so often."""

    subject: Subject
    images_seen: int
    rollbacks: int


class SampleGrids:
    """Generates images for people to look at and for the collapse monitor.

    Sampler, reals and metrics are made when they are first needed, so that a resumed run trains at once. What is
    measured follows from the weights and the settings alone.

    Args:
        config, run: of the run.
        reader: of the training split.
        device: where images are generated.
    """

    def __init__(self, config: Config, run: RunFolder, reader: Reader, device: torch.device) -> None:
        self.config, self.run, self.reader, self.device = config, run, reader, device
        self.measured: Images  # at the collapse monitor's last measurement
        self.told: list[list[float]]  # labels of what it generates: those of the reals beside it

    @cached_property
    def sampler(self) -> Sampler:
        """Generates images."""
        told = read_labels(self.run).rows if self.config.network.label_columns else None
        return Sampler(self.config, self.device, told)

    @cached_property
    def real(self) -> Samples:
        """The same real images in every grid; the generated ones are of their classes."""
        return real_samples(self.reader, DISTANCE, self.config.seed)

    @cached_property
    def collapse_metrics(self) -> CollapseMetrics:
        """Compares generated images with images of the data, all of them different ones."""
        from trainer.collapse.collapse_metrics import MOST_IMAGES, CollapseMetrics  # as below

        # Twice as many reals: half of them to compare with, and half to know what the measures say of the data itself.
        number = min(MOST_IMAGES, self.reader.split.samples // 2)
        real = real_samples(self.reader, 2 * number, self.config.seed)
        self.told = real.labels[number:].tolist()
        return CollapseMetrics(real.images, self.reader.labels.first_classes(real.labels))

    @cached_property
    def distance(self) -> SlicedWasserstein:
        """Measures the distance of generated images to the reals."""
        from trainer.metrics.sliced_wasserstein import SlicedWasserstein  # a second of imports, when first needed

        return SlicedWasserstein(self.real.images)

    def warm_up(self) -> None:
        """Make what the first request would have to wait for."""
        if self.config.generates_grids:
            _ = self.sampler, self.distance
        if self.config.monitor_interval(self.reader.split.samples):
            _ = self.collapse_metrics

    def __call__(self, request: Request, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Carry out a request with the generator's weights, which an alarm does not need; return what was measured."""
        match request.subject:
            case "samples":
                return self.write(weights, request.images_seen)
            case "collapse":
                return self.measure_collapse(weights, request)
            case "alarm":
                self.write_grid(self.run.alarm_images(request.images_seen, request.rollbacks), self.measured)
                return {}

    def write(self, ema: Mapping[str, Tensor], images_seen: int) -> dict[str, float]:
        """Write the sample grid of the averaged generator; return its distance to the data, by name."""
        self.sampler.load(ema)
        labels = self.real.labels.tolist() if self.config.network.g_conditional else None
        fake = self.sampler.generate(DISTANCE, self.config.seed, "sample", labels=labels)
        self.write_grid(self.run.sample(images_seen), fake)
        return {f"swd_{DISTANCE}": self.distance(fake)}

    def write_grid(self, target: Path, fake: Images) -> None:
        """Write one picture: reals beside generated images. A full disk is logged, and training goes on."""
        count = min(GRID, len(fake))  # of few training images, the collapse monitor generates fewer
        picture = real_and_fake_grid(self.real.images[:count], fake[:count], columns=8)
        try:
            target.parent.mkdir(exist_ok=True)
            content = io.BytesIO()
            picture.save(content, format="png")
            write_atomically(target, content.getvalue(), durable=False)
        except OSError as error:
            log.error("%s was not written: %s", target, error.strerror)

    def measure_collapse(self, weights: Mapping[str, Tensor], request: Request) -> dict[str, float]:
        """Measure the generator's present weights: their average would hide a collapse."""
        self.sampler.load(weights)
        number = self.collapse_metrics.number
        labels = self.told if self.config.network.g_conditional else None
        # This word is a part of the key of the draws: by another one, measurements of old runs would change.
        self.measured = self.sampler.generate(number, self.config.seed, "sentinel", labels=labels)
        return self.collapse_metrics(self.measured)
