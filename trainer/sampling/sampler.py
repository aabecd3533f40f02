"""Sampling: from the averaged generator to images.

The moving average has weights, but few buffers of its own, and those of the raw weights do not fit it. So they are
computed when the average is loaded: BatchNorm's statistics from keyed noise ("standing statistics", Brock et al. 2019,
arXiv:1809.11096), and spectral norm's vectors by power iteration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from shards.dataset.labels import Labels
from shards.dataset.order import permute
from shards.dataset.stream import Reader, Samples
from shards.images.display import over_checkerboard
from trainer.config.config import Config
from trainer.core.iteration import batched
from trainer.core.randomness import normal, philox
from trainer.networks import build_generator
from trainer.networks.base import Latent, named_weights
from trainer.networks.batch_statistics import BatchStatistics
from trainer.networks.spectral_norm import start_spectral_norm

Images = npt.NDArray[np.uint8]  # (n, h, w, c)
Key = tuple[int | str, ...]
LatentCode = tuple[Float[Tensor, "1 ..."], Latent]
"""One image: its latent code on the device, and the latent whose labels and other draws go with it."""
T = TypeVar("T")

STATISTICS_BATCHES = 16
ITERATIONS = 50  # of the power method
MEAN_CODES = 4096  # whose average is the middle of w
GAP = 4  # pixels between the reals and the fakes of a grid


class Sampler:
    """The generator as it is used after training: averaged weights, evaluation mode, no style mixing.

    Args:
        config: of the run.
        device: where to generate.
        told: labels for pictures that nobody has chosen any for, (m, values), in turn; None: classes in turn.
    """

    def __init__(self, config: Config, device: torch.device, told: Labels | None = None) -> None:
        self.config, self.device, self.told = config, device, told
        self.batch_size = config.micro_batch_size  # of codes and pictures; the statistics keep the training's
        # Style mixing is a regulariser of training; a sample has one style.
        self.settings = replace(config.network, style_mixing=0.0)
        self.generator = build_generator(config.generator, config.network).to(device)
        self.generator.requires_grad_(False)
        self.statistics = BatchStatistics(self.generator, device)
        self.middle: Tensor | None = None

    def load(self, ema: Mapping[str, Tensor], truncation: float | None = None) -> None:
        """Take over averaged weights, and compute the buffers that belong to them and to a truncation of z."""
        for name, weight in named_weights(self.generator):
            weight.copy_(ema[name])
        self.middle = None
        # Many iterations: the average has weights of its own, and no vectors that followed them.
        # By a fixed key: samples do not depend on the run's seed by way of it.
        start_spectral_norm(self.generator, 0, "standing", ITERATIONS)
        self.measure_statistics(truncation)

    def load_whole(self, tensors: Mapping[str, Tensor], middle: Tensor | None) -> None:
        """Take over weights with the buffers and the mean style that belong to them, as a bundle has them."""
        self.generator.load_state_dict(tensors)
        self.middle = None if middle is None else middle.to(self.device)
        self.generator.eval()

    def measure_statistics(self, truncation: float | None) -> None:
        """Compute the statistics of BatchNorm, where there are some, for noise that is truncated so."""
        if self.statistics.wants_standing:
            self.generator.train()
            self.statistics.restart()
            n = self.config.micro_batch_size
            for k in range(STATISTICS_BATCHES):
                rng = philox(self.config.seed, "standing statistics", k)
                latent = self.generator.draw(self.settings, rng, self.labels(range(k * n, k * n + n)))
                self.generator(self.bring(self.truncate(latent, rng, truncation)))
            self.statistics.adopt()
        self.generator.eval()

    def labels(self, rows: Sequence[int]) -> Tensor:
        """Return the labels of pictures that nobody has chosen any for, (n, values): one after the other."""
        if self.told is not None:
            return torch.from_numpy(self.told[np.array(rows) % len(self.told)])
        classes = self.settings.classes if self.settings.g_conditional else 0
        return torch.tensor([[i % classes if classes else -1] for i in rows])

    def latent(self, i: int, key: Key, label: Sequence[float] | None = None, truncation: float | None = None) -> Latent:
        """Draw the latent of picture i: a function of the key and i alone."""
        rng = philox(*key, i)
        labels = self.labels([i]) if label is None else torch.tensor([label], dtype=torch.float64)
        return self.truncate(self.generator.draw(self.settings, rng, labels), rng, truncation)

    def truncate(self, latent: Latent, rng: np.random.Generator, truncation: float | None) -> Latent:
        """Draw z again wherever it is further from 0 than a truncation (Brock et al. 2019, §3.1), if the code is z."""
        z = latent.z
        if truncation is not None and not self.generator.interpolates_linearly:
            while bool((far := z.abs() > truncation).any()):
                z = torch.where(far, normal(rng, *z.shape), z)
        return replace(latent, z=z)

    def bring(self, latent: Latent) -> Latent:
        """Bring a latent to the device."""
        return latent.map(lambda tensor: tensor.to(self.device))

    def latent_code(self, latent: Latent, truncation: float | None = None) -> Float[Tensor, "n ..."]:
        """Return codes; a truncation pulls those of w towards their mean (Karras et al. 2019, appendix B)."""
        code = self.generator.latent_code(latent)
        if truncation is None or not self.generator.interpolates_linearly:
            return code
        return self.mean_code().lerp(code, truncation)

    def mean_code(self) -> Tensor:
        """Return the mean of the codes of w, computed once."""
        if self.middle is None:
            self.middle = self.many_codes().mean(0)
        return self.middle

    def many_codes(self, told: Labels | None = None) -> Float[Tensor, "n ..."]:
        """Return MEAN_CODES codes, always of the same noise, whose mean is the middle of w.

        Args:
            told: labels of pictures, (m, values), in turn; None: those of pictures that nobody has chosen any for.
        """
        z = normal(philox(self.config.seed, "middle"), MEAN_CODES, self.settings.z_dim)
        rows = np.arange(MEAN_CODES)
        labels = self.labels(range(MEAN_CODES)) if told is None else torch.from_numpy(told[rows % len(told)])
        # w needs no other draws, such as maps of noise.
        return self.generator.latent_code(self.bring(Latent(z, labels)))

    def generate(
        self,
        num: int,
        *key: int | str,
        labels: Sequence[Sequence[float]] | None = None,
        truncation: float | None = None,
    ) -> Images:
        """Generate `num` images; image i is a function of the weights, the key, its labels and i alone."""
        chosen = [None if labels is None else labels[i] for i in range(num)]
        latents = (self.latent(i, key, chosen[i], truncation) for i in range(num))
        return np.concatenate(list(self.generate_from(latents, truncation)))

    def generate_from(self, latents: Iterable[Latent], truncation: float | None = None) -> Iterator[Images]:
        """Generate from latents of one image each, a batch at a time."""
        return self.synthesize(self.latent_codes(latents, truncation))

    def latent_codes(self, latents: Iterable[Latent], truncation: float | None = None) -> Iterator[LatentCode]:
        """Yield the latent code of each latent, with the latent."""
        for group in batched(latents, self.batch_size):
            codes = self.latent_code(self.bring(Latent.cat(self.padded(group))), truncation)
            yield from zip(codes.split(1), group, strict=False)

    def synthesize(self, coded: Iterable[LatentCode]) -> Iterator[Images]:
        """Generate from latent codes of one image each, a batch at a time."""
        for group in batched(coded, self.batch_size):
            codes, latents = zip(*self.padded(group), strict=True)
            pictures = self.generator.synthesize(torch.cat(codes), self.bring(Latent.cat(latents)))
            yield to_images(pictures[: len(group)])

    def padded(self, group: list[T]) -> list[T]:
        """Pad a batch to its full size: for smaller batches a kernel may round differently."""
        return group + group[-1:] * (self.batch_size - len(group))

    def interpolate(
        self, stops: Sequence[Latent], steps: int, loop: bool = False, truncation: float | None = None
    ) -> Iterator[Images]:
        """Interpolate through latents of one image each, `steps` images from each to the next.

        A loop leads back to the first one; without it the last image is that of the last latent.
        """
        coded = list(self.latent_codes(stops, truncation))
        legs = pairwise([*coded, coded[0]] if loop else coded)
        moving = (self.interpolated(*leg, k / steps) for leg in legs for k in range(steps))
        return self.synthesize(chain(moving, coded[:0] if loop else coded[-1:]))

    def interpolated(self, first: LatentCode, last: LatentCode, t: float) -> LatentCode:
        """Return the point at t in [0, 1] between two images.

        Codes move along a straight line in w, and on the sphere in z, as do the other draws. The labels
        change half way.
        """
        (start, a), (end, b) = first, last
        move = torch.lerp if self.generator.interpolates_linearly else slerp
        extra = {name: slerp(value, b.extra[name], t) for name, value in a.extra.items()}
        return move(start, end, t), Latent(a.z, a.label if t < 0.5 else b.label, extra)


def slerp(a: Float[Tensor, "n ..."], b: Float[Tensor, "n ..."], t: float) -> Float[Tensor, "n ..."]:
    """Interpolate on the sphere, and between the lengths (Shoemake 1985; White 2016, arXiv:1609.04468).

    Straight on where there is no one way along it: between equal and between opposite directions.
    """
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1)
    angle = torch.acos(cosine).reshape(-1, *[1] * (a.dim() - 1))
    if bool((torch.sin(angle) < 1e-4).any()):
        return torch.lerp(a, b, t)
    return torch.sin((1 - t) * angle) / torch.sin(angle) * a + torch.sin(t * angle) / torch.sin(angle) * b


def to_images(x: Tensor) -> Images:
    """Turn (n, c, h, w) in [-1, 1] into bytes, rounding to the nearest; of RGBA the colours are divided by alpha."""
    if x.shape[1] == 4:
        x = divide_by_alpha(x.float())
    return x.float().mul(127.5).add(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def divide_by_alpha(x: Float[Tensor, "n 4 h w"]) -> Float[Tensor, "n 4 h w"]:
    """Return straight RGBA in [-1, 1] of premultiplied; as in shards, black is where alpha is no byte but 0."""
    alpha = (x[:, 3:].clamp(-1, 1) + 1) / 2
    visible = alpha * 255 > 0.5
    colours = torch.where(visible, (x[:, :3] + 1) / alpha.clamp_min(1 / 512) - 1, -1.0)
    return torch.cat([colours, x[:, 3:]], 1)


def real_samples(reader: Reader, num: int, seed: int) -> Samples:
    """Return `num` real pictures with their labels, the same for the same seed; they repeat when there are fewer."""
    samples = reader.split.samples
    return reader(permute(np.arange(num) % samples, samples, seed, "reals"))


def image_grid(pictures: Images, columns: int) -> Images:
    """Lay pictures out in rows: RGB, (rows * h, columns * w, 3), black where they end, over a checkerboard."""
    pictures = over_checkerboard(pictures)
    n, h, w, c = pictures.shape
    rows = -(-n // columns)
    padded = np.zeros((rows * columns, h, w, c), dtype=np.uint8)
    padded[:n] = pictures
    return padded.reshape(rows, columns, h, w, c).swapaxes(1, 2).reshape(rows * h, columns * w, c)


def real_and_fake_grid(real: Images, fake: Images, columns: int) -> Image.Image:
    """Return one picture: reals on the left, fakes on the right."""
    left, right = image_grid(real, columns), image_grid(fake, columns)
    return Image.fromarray(np.concatenate([left, np.full((len(left), GAP, 3), 255, np.uint8), right], axis=1))
