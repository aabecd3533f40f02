"""Extract features of images; processes share the work by groups of fixed size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
from tqdm import tqdm

from trainer.distributed.numerical_environment import numerical_environment
from trainer.distributed.world import World
from trainer.evaluation.source import ImageSource, Labels
from trainer.evaluation.store import Arrays, FeatureStore, ImageGroup, split_groups
from trainer.extractors import Extractor
from trainer.extractors.base import default_device
from trainer.sampling.sampler import Images

SCHEMA = "1"


@dataclass(frozen=True)
class ExtractionTask:
    """Extract features of the first `count` images of a source.

    Args:
        source: of the images.
        extractor: None: only images are needed, no features.
        count: how many images.
        kept: so many of the first images are needed themselves, too.
        cache: the folder of all features.
        evaluation: names the evaluation that features of generated images belong to.
    """

    source: ImageSource
    extractor: Extractor | None
    count: int
    kept: int
    cache: Path
    evaluation: str = ""

    @property
    def stored(self) -> int:
        """How many images are stored beside the features: only generated ones, which are expensive to make again."""
        return self.kept if self.source.count is None else 0

    @cached_property
    def store(self) -> FeatureStore:
        """The store of the features. Its key includes the numerical environment, because the bits depend on it."""
        label = self.extractor.label if self.extractor else "pictures"
        here = numerical_environment(default_device())
        # Pillow resizes; device, instruction set and library versions decide how kernels round.
        place = (PIL.__version__, *(str(here[name]) for name in ("device", "instructions", "torch", "cudnn")))
        evaluation = self.evaluation if self.source.count is None else ""  # features of data serve every evaluation
        key = (SCHEMA, *self.source.key, label, str(self.stored), *place)
        return FeatureStore(self.cache, *key, evaluation=evaluation)

    def compute(self, group: ImageGroup) -> Arrays:
        """Compute one group.

        Raises:
            Refused: an image cannot be read.
        """
        images = self.source.images(group.rows)
        arrays: Arrays = {"pictures": images[: max(0, self.stored - group.start)]}
        if self.extractor:
            seen = self.extractor(images)
            arrays["features"] = seen.features
            if seen.probabilities is not None:
                arrays["probabilities"] = seen.probabilities
        return arrays

    def extract(self, world: World) -> None:
        """Compute the groups of this rank; rank 0 then computes those that other ranks have not finished.

        So rank 0 waits for nobody, finishes even if all others die, and raises every refusal itself. A rank that starts
        after rank 0 has finished does nothing.

        Raises:
            Refused: an image cannot be read, or a group cannot be written.
        """
        everything = split_groups(self.count)
        order = everything[world.rank :: world.size]
        if world.main:  # backwards, so that it reaches the groups that other ranks are computing last
            order += [group for group in reversed(everything) if group not in order]
            self.store.begin()
        for group in tqdm(order, desc=self.source.name, unit="part", disable=None if world.main else True, leave=False):
            # Another rank may have computed the group since; then nothing is left to do.
            if not self.store.has(group) and not self.store.done.exists():
                self.store.write(group, self.compute(group))

    def gather(self) -> ExtractedSamples:
        """Concatenate all groups in order; damaged ones are computed again.

        Raises:
            Refused: an image cannot be read, or a group cannot be written.
        """
        whole: Arrays = {}
        for group in split_groups(self.count):
            part = self.store.read(group)
            if part is None:
                part = self.compute(group)
                self.store.write(group, part)
            for name, array in part.items():
                rows = self.stored if name == "pictures" else self.count
                target = whole.setdefault(name, np.empty((rows, *array.shape[1:]), array.dtype))
                target[group.start : group.start + len(array)] = array
        images = [whole["pictures"]] + [self.source.images(g.rows) for g in split_groups(self.kept - self.stored)]
        labels = self.source.labels(np.arange(self.count))
        return ExtractedSamples(whole.get("features"), whole.get("probabilities"), np.concatenate(images), labels)


@dataclass(frozen=True)
class ExtractedSamples:
    """Features, classes and images of a source."""

    features: npt.NDArray[np.float32] | None  # (n, d)
    probabilities: npt.NDArray[np.float32] | None  # (n, C)
    images: Images  # only of the first `kept` ones
    labels: Labels | None  # (n,)
