"""From pictures to features, shared among processes by fixed groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
from tqdm import tqdm

from trainer.distributed.numerical_environment import environment
from trainer.distributed.world import World
from trainer.evaluation.source import ImageSource, Labels
from trainer.evaluation.store import Arrays, Group, Store, groups
from trainer.extractors import Extractor
from trainer.extractors.base import usual_device
from trainer.sampling.sampler import Images

SCHEMA = "1"


@dataclass(frozen=True)
class ExtractionTask:
    """The first `count` pictures of a source, as an extractor sees them.

    Args:
        source: the pictures.
        extractor: what turns them into features; None: nothing does, and only pictures are wanted.
        count: how many.
        kept: so many of the first ones are wanted as pictures, too.
        cache: the folder of all features.
        evaluation: that features of painted pictures belong to.
    """

    source: ImageSource
    extractor: Extractor | None
    count: int
    kept: int
    cache: Path
    evaluation: str = ""

    @property
    def stored(self) -> int:
        """Pictures that lie beside the features: only those that are dear to make again."""
        return self.kept if self.source.count is None else 0

    @cached_property
    def store(self) -> Store:
        """Where the features lie. Bits hold for one environment, so what they depend on of it is in the key."""
        label = self.extractor.label if self.extractor else "pictures"
        here = environment(usual_device())
        place = (PIL.__version__, *(str(here[name]) for name in ("device", "instructions", "torch", "cudnn")))
        evaluation = self.evaluation if self.source.count is None else ""
        key = (SCHEMA, *self.source.key, label, str(self.stored), *place)
        return Store(self.cache, *key, evaluation=evaluation)

    def compute(self, group: Group) -> Arrays:
        """Compute one part.

        Raises:
            Refused: a picture cannot be had.
        """
        pictures = self.source.pictures(group.rows)
        arrays: Arrays = {"pictures": pictures[: max(0, self.stored - group.start)]}
        if self.extractor:
            seen = self.extractor(pictures)
            arrays["features"] = seen.features
            if seen.probabilities is not None:
                arrays["probabilities"] = seen.probabilities
        return arrays

    def extract(self, world: World) -> None:
        """Compute this process's parts. The main process then takes over those that others have not come to.

        So it waits for nobody, ends even if it is the only one left, and meets every refusal itself. Who comes when it
        has ended already does nothing.

        Raises:
            Refused: a picture cannot be had, or a part cannot be written.
        """
        everything = groups(self.count)
        order = everything[world.rank :: world.size]
        if world.main:  # from the last one on: so it meets whoever is still at work only at the end
            order += [group for group in reversed(everything) if group not in order]
            self.store.begin()
        for group in tqdm(order, desc=self.source.name, unit="part", disable=None if world.main else True, leave=False):
            if not self.store.has(group) and not self.store.done.exists():
                self.store.write(group, self.compute(group))

    def gather(self) -> Seen:
        """Bring all parts together in the order of numbers; damaged ones are computed again."""
        whole: Arrays = {}
        for group in groups(self.count):
            part = self.store.read(group)
            if part is None:
                part = self.compute(group)
                self.store.write(group, part)
            for name, array in part.items():
                rows = self.stored if name == "pictures" else self.count
                target = whole.setdefault(name, np.empty((rows, *array.shape[1:]), array.dtype))
                target[group.start : group.start + len(array)] = array
        pictures = [whole["pictures"]] + [self.source.pictures(g.rows) for g in groups(self.kept - self.stored)]
        labels = self.source.labels(np.arange(self.count))
        return Seen(whole.get("features"), whole.get("probabilities"), np.concatenate(pictures), labels)


@dataclass(frozen=True)
class Seen:
    """What is known of the pictures of a source."""

    features: npt.NDArray[np.float32] | None  # (n, d)
    probabilities: npt.NDArray[np.float32] | None  # (n, C)
    pictures: Images  # of the first ones only
    labels: Labels | None  # (n,)
