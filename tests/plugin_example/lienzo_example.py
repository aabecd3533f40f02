"""One of each that a package can add to lienzo: each is as small as it can be."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from shards.sources.source_entry import SourceEntry
from shards.storage.place import Url
from trainer.augment.base import Augmentation
from trainer.core.randomness import uniform
from trainer.extractors import Extractor, ExtractorOptions
from trainer.extractors.base import Network as ExtractorNetwork
from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Objective
from trainer.losses.penalties.base import Penalty
from trainer.metrics.base import Estimate, Metric, Sample
from trainer.networks import base
from trainer.networks.base import DiscriminatorOutput, Head, Latent, Weights
from trainer.networks.network_settings import NetworkSettings

SITE = {"partition": "gpu", "gpus_per_node": 4, "setup": ["module load cuda"]}


def small_normal(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    """Draw weights from N(0, 0.02); biases are zero."""
    return 0.0 if name.endswith("bias") else rng.normal(0.0, 0.02, shape)


class Linear(base.Generator):
    """One linear layer."""

    initial_value = staticmethod(small_normal)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        self.layer = nn.Linear(settings.z_dim, int(np.prod(settings.data_shape)))

    def synthesize(self, code: Tensor, latent: Latent) -> Tensor:
        """Generate pictures."""
        out: Tensor = self.layer(code).tanh().unflatten(1, self.settings.data_shape)
        return out


class Quadratic(base.Discriminator):
    """The squares of linear functions of the pixels."""

    initial_value = staticmethod(small_normal)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        self.layer = nn.Linear(int(np.prod(settings.data_shape)), settings.d_channels)
        self.head = Head(settings.d_channels, settings)

    def forward(self, x: Tensor, label: Tensor) -> DiscriminatorOutput:
        """Judge pictures."""
        out: DiscriminatorOutput = self.head(self.layer(x.flatten(1)).square(), label)
        return out


EXPONENTIAL = Objective(
    discriminator=lambda real, fake: (-real).exp().mean() + fake.exp().mean(),
    generator=lambda fake, real: (-fake).exp().mean(),
)


class Drift(Penalty):
    """D's logits on reals stay small."""

    def __call__(self, d_pass: DiscriminatorPass, draws: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean square."""
        return d_pass.d_real.logits.square().mean(), {}


class UpsideDown(Augmentation):
    """Half of the pictures stand on their heads."""

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """Draw a number for each."""
        return {"upside_down": uniform(rng, n)}

    def __call__(self, x: Tensor, draws: Mapping[str, Tensor], p: Tensor) -> Tensor:
        """Turn those over whose number is small."""
        return torch.where(draws["upside_down"].view(-1, 1, 1, 1) < 0.5, x.flip(2), x)


def measure_brightness(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Return the mean of all features of the fakes."""
    assert fake.features is not None
    mean = float(fake.features.mean())
    return {"brightness": Estimate(mean, mean, mean, fake.count, "none", "the mean")}


BRIGHTNESS = Metric(
    "brightness", frozenset({"features"}), {"brightness": "data"}, "mean of the features", measure_brightness
)


class Thumbnail(ExtractorNetwork):
    """The means of 4 x 4 fields."""

    size, dim = 32, 48

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Return features alone."""
        return nn.functional.adaptive_avg_pool2d(x / 255, 4).flatten(1), None


def open_thumbnail(options: ExtractorOptions = ExtractorOptions(), /) -> Extractor:  # noqa: B008  # it is frozen
    """Open the extractor; it needs no file."""
    return Extractor("thumbnail", "1", Thumbnail(), options.resize or "clean")


class Stripes:
    """As many striped pictures as the URL says: stripes://made/24."""

    requests = 1

    def __init__(self, url: Url) -> None:
        self.count = int(url.name)
        self.notes: list[str] = []

    def scan(self) -> Iterator[SourceEntry]:
        """Yield the names."""
        for number in range(self.count):
            yield SourceEntry(b"%04d.png" % number, place=str(number))

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Make a picture."""
        rng = np.random.default_rng(int(place))
        pixels = np.repeat(rng.integers(0, 256, (1, 32, 3), np.uint8), 32, axis=0)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    def size_of(self, place: str) -> int:
        """Return the same for all: they are not made yet."""
        return 1000
