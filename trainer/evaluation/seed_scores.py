"""Scores of single pictures, to choose seeds by: each measure is a class, and one line in SCORES."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from shards.storage.place import Place
from trainer.core.fields import Refused
from trainer.distributed.world import World
from trainer.evaluation.extraction import ExtractionTask
from trainer.evaluation.named_extractor import open_by_name
from trainer.evaluation.source import open_images
from trainer.extractors.base import CACHE
from trainer.metrics import nearest
from trainer.metrics.arrays import row_spans
from trainer.metrics.base import Features, Float64Array
from trainer.metrics.neighbours import SquaredDistances, direct_distances_at, nearest_rows
from trainer.networks import build_discriminator
from trainer.networks.base import Discriminator, Latent
from trainer.runs.checkpoint import TENSORS
from trainer.runs.trained_generator import TrainedGenerator
from trainer.runs.weight_files import DISCRIMINATOR, read_tensors
from trainer.sampling.sampler import Images, LatentCode

K = 3  # of the realism score, as in the paper


@dataclass(frozen=True)
class ScoreOptions:
    """What measures may need."""

    trained: TrainedGenerator
    data: Place | None
    """The real pictures; None: those that the run was trained on."""
    extractor: str | None = None
    weights: Path | None = None
    cache: Path = CACHE


class Score(ABC):
    """A measure of a picture, from its code and latent.

    Args:
        options: the generator, and what measures may need.

    Raises:
        Refused: this run has not what the measure needs.
    """

    higher_is_better = True

    def __init__(self, options: ScoreOptions) -> None:
        self.options, self.trained = options, options.trained
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Compute what all pictures need."""

    @abstractmethod
    def __call__(self, coded: list[LatentCode]) -> Float64Array:
        """Return the scores of pictures, (n,)."""


class MeanStyle(Score):
    """The distance of w from the mean of w: near pictures are typical and seldom broken, as with truncation."""

    higher_is_better = False

    def prepare(self) -> None:
        """Compute the mean."""
        sampler = self.trained.sampler
        if not sampler.generator.interpolates_linearly:
            raise Refused("--by mean-style: this network has no styles; use --by realism or logit")
        self.middle = sampler.many_codes(self.trained.labels).mean(0)

    def __call__(self, coded: list[LatentCode]) -> Float64Array:
        """Return the root of the mean square over layers and entries."""
        codes = torch.cat([code for code, _ in coded])
        return (codes - self.middle).double().square().mean((1, 2)).sqrt().cpu().numpy()


class Logit(Score):
    """The logit of the run's own discriminator, as it was saved: high is real to it. No augmentation is applied."""

    def prepare(self) -> None:
        """Load the discriminator."""
        config, sampler = self.trained.config, self.trained.sampler
        if config.network.pack > 1:
            raise Refused("--by logit: the discriminator of this run judges packs of pictures, and no single one")
        network = build_discriminator(config.discriminator, config.network)
        tensors = read_tensors(self.trained.checkpoint.path / TENSORS, (DISCRIMINATOR,))
        network.load_state_dict({name.removeprefix(DISCRIMINATOR): tensor for name, tensor in tensors.items()})
        self.discriminator: Discriminator = network.to(sampler.device).requires_grad_(False)
        self.discriminator.eval()
        # Where the discriminator compares the pictures of a batch, each is judged alone: a seed has one score.
        self.size = 1 if config.network.mbstd_group else config.micro_batch_size

    @torch.no_grad()
    def __call__(self, coded: list[LatentCode]) -> Float64Array:
        """Return the logits."""
        return np.concatenate([self.judge(coded[at]) for at in row_spans(len(coded), self.size)])

    def judge(self, coded: list[LatentCode]) -> Float64Array:
        """Return the logits of at most a batch, which is filled up with copies."""
        sampler = self.trained.sampler
        codes, latents = zip(*coded, *[coded[-1]] * (self.size - len(coded)), strict=True)
        latent = sampler.bring(Latent.cat(latents))
        logits = self.discriminator(sampler.generator.synthesize(torch.cat(codes), latent), latent.label).logits
        judged: Float64Array = logits[: len(coded)].double().cpu().numpy()
        return judged


class OfFeatures(Score):
    """A measure of a picture's features among those of real pictures."""

    def prepare(self) -> None:
        """Extract the features of the real pictures."""
        options, network = self.options, self.trained.config.network
        data = options.data or self.trained.config.data
        if data is None or not network.size:
            raise Refused("this run was not trained on shards of pictures: name real ones with --data")
        real = open_images(data, (*network.shape, network.channels))
        if real.count <= 2 * K:
            raise Refused(f"{real.name} has {real.count} pictures: too few to tell what is real")
        self.extractor = open_by_name(options.extractor, options.weights, real, options.cache)
        task = ExtractionTask(real, self.extractor, real.count, 0, options.cache.expanduser())
        task.extract(World())
        features = task.gather().features
        assert features is not None
        self.real = features

    def __call__(self, coded: list[LatentCode]) -> Float64Array:
        """Return the scores of the pictures' features."""
        pictures: list[Images] = list(self.trained.sampler.synthesize(coded))
        return self.score(self.extractor(np.concatenate(pictures)).features)

    @abstractmethod
    def score(self, features: Features) -> Float64Array:
        """Return the scores of features."""


class Realism(OfFeatures):
    """The realism score (Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 3): 1 and more lies in a ball of the reals."""

    def score(self, features: Features) -> Float64Array:
        """Return the scores of features."""
        return realism(self.kept, self.radii, features)

    def prepare(self) -> None:
        """Measure the balls of the reals."""
        super().prepare()
        self.kept, self.radii = real_balls(self.real)


class Novelty(OfFeatures):
    """The distance of features to the nearest real picture: far is unlike all that the data holds."""

    def score(self, features: Features) -> Float64Array:
        """Return the scores of features."""
        return nearest(features, self.real, 1)[0][:, 0]


def real_balls(real: Features) -> tuple[Features, Float64Array]:
    """Return the reals whose balls, to their third neighbour, are not larger than the median, and squared radii.

    The larger half is left out as in the paper: outliers have balls in which anything would seem real.
    """
    squares = nearest_rows(real, real, K, itself=True)[0][:, K - 1]
    small = squares <= np.median(squares)
    return real[small], squares[small]


def realism(real: Features, radii: Float64Array, features: Features) -> Float64Array:
    """Return the largest of radius over distance over the reals, (n,): infinite for a copy of a real picture.

    Args:
        real: (m, d).
        radii: (m,) squared.
        features: (n, d).
    """
    distances, found = SquaredDistances(features, real), np.zeros(len(features))
    for span in row_spans(len(features)):
        best, place = np.full(span.stop - span.start, -1.0), np.zeros(span.stop - span.start, np.int64)
        for there, squares in distances(span):
            # Distances below the error of rounding are none: the direct formula decides below.
            ratio = radii[there] / np.maximum(squares, distances.error + np.finfo(np.float64).tiny)
            most = ratio.argmax(1)
            value = ratio[np.arange(len(most)), most]
            place, best = np.where(value > best, most + there.start, place), np.maximum(value, best)
        exact = direct_distances_at(features, real, np.arange(span.start, span.stop), place)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[span] = np.where(exact > 0, np.sqrt(radii[place] / exact), np.inf)
    return found


SCORES: dict[str, type[Score]] = {
    "realism": Realism,
    "logit": Logit,
    "mean-style": MeanStyle,
    "novelty": Novelty,
}
