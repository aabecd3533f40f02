"""The pictures that a run's generator paints, by number."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from shards.dataset.index import Index
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.evaluation.source import Folder, Labels, Rows, Shards
from trainer.runs.checkpoint import MANIFEST, Checkpoint, sha256
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator, class_names
from trainer.sampling.sampler import Images


class Painted:
    """What a run's averaged generator paints: picture i is a function of the weights, the seed set, its class and i.

    A generator that is told classes paints those of the real pictures of the same numbers, so that the classes have
    their frequencies. If those have none, it paints the classes of the training pictures; if nobody knows any more what
    it was told, one class after the other.

    Args:
        run: the run folder.
        config: its settings.
        checkpoint: a whole one.
        seed_set: "report", or "select" for the choice of a checkpoint.
        real: what its pictures are compared with.

    Raises:
        Refused: the real pictures have classes that the generator was not told.
    """

    count = None

    def __init__(self, run: Path, config: Config, checkpoint: Checkpoint, seed_set: str, real: Shards | Folder) -> None:
        self.run, self.checkpoint, self.seed_set = run, checkpoint, seed_set
        self.name = f"{run}, checkpoint {checkpoint.path.name}"
        known = class_names(config, checkpoint) if config.network.g_classes else ()
        self.told = labelled(config, real) if known else None
        self.classes = self.told.classes if self.told else ()
        if unknown := [name for name in self.classes if name not in known]:
            raise Refused(
                f"the generator of {run} was not told the class {unknown[0]!r} of {real.name}, but {', '.join(known)}"
            )
        self.indices = np.array([*map(known.index, self.classes), -1])  # the generator's, by those of the reals
        self.key = ("painted", sha256(checkpoint.path / MANIFEST), seed_set, self.told.key[1] if self.told else "")

    @cached_property
    def trained(self) -> TrainedGenerator:
        """Made by those processes only that paint."""
        return TrainedGenerator(self.run, SamplingOptions(checkpoint=self.checkpoint.path.name))

    def pictures(self, rows: Rows) -> Images:
        """Paint pictures."""
        labels = self.labels(rows)
        key = ("evaluation", self.seed_set)
        chosen = [None] * len(rows) if labels is None else self.indices[labels].tolist()
        latents = (self.trained.sampler.latent(i, key, c) for i, c in zip(rows.tolist(), chosen, strict=True))
        return np.concatenate(list(self.trained.sampler.generate_from(latents)))

    def labels(self, rows: Rows) -> Labels | None:
        """Return the classes that are painted, by their places in `classes`."""
        return self.told.labels(rows % self.told.count) if self.told else None


def labelled(config: Config, real: Shards | Folder) -> Shards:
    """Return the pictures whose classes are painted: the real ones, or those of the training if these have none."""
    assert config.data
    return real if isinstance(real, Shards) and real.classes else Shards(Index.open(config.data), "train")
