"""The pictures that a run's generator paints, by number."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from shards.index import Index
from trainer.checkpoint import MANIFEST, Checkpoint, sha256
from trainer.config import Config
from trainer.evaluation.source import Labels, Rows, Shards
from trainer.sample import Pictures
from trainer.studio import Brush, Studio, class_names


class Painted:
    """What a run's averaged generator paints: picture i is a function of the weights, the seed set, its class and i.

    A generator that is told classes paints those of the training pictures of the same numbers, so that the classes have
    the data's frequencies; if that data is gone, one class after the other.

    Args:
        run: the run folder.
        config: its settings.
        checkpoint: a whole one.
        seed_set: "report", or "select" for the choice of a checkpoint.
    """

    count = None

    def __init__(self, run: Path, config: Config, checkpoint: Checkpoint, seed_set: str) -> None:
        self.run, self.checkpoint, self.seed_set = run, checkpoint, seed_set
        self.name = f"{run}, checkpoint {checkpoint.path.name}"
        self.told = training_labels(config, checkpoint) if config.network.g_classes else None
        self.classes = self.told.classes if self.told else ()
        self.key = ("painted", sha256(checkpoint.path / MANIFEST), seed_set, self.told.key[1] if self.told else "")

    @cached_property
    def studio(self) -> Studio:
        """Made by those processes only that paint."""
        return Studio(self.run, Brush(checkpoint=self.checkpoint.path.name))

    def pictures(self, rows: Rows) -> Pictures:
        """Paint pictures."""
        labels = self.labels(rows)
        key = ("evaluation", self.seed_set)
        chosen = [None] * len(rows) if labels is None else labels.tolist()
        latents = (self.studio.painter.latent(i, key, c) for i, c in zip(rows.tolist(), chosen, strict=True))
        return np.concatenate(list(self.studio.painter.paint_all(latents)))

    def labels(self, rows: Rows) -> Labels | None:
        """Return the classes that the generator is told."""
        return self.told.labels(rows % self.told.count) if self.told else None


def training_labels(config: Config, checkpoint: Checkpoint) -> Shards | None:
    """Return the training pictures, if the data that the run was trained on is still there."""
    return Shards(Index.open(config.data), "train") if config.data and class_names(config, checkpoint) else None
