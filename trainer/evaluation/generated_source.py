"""Images that a run's generator makes, by number."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from shards.dataset.index import Index
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.evaluation.source import FolderImages, Labels, Rows, ShardImages
from trainer.runs.checkpoint import MANIFEST, Checkpoint
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator, class_names
from trainer.sampling.sampler import Images


class GeneratedImages:
    """Images of a run's averaged generator: image i is a function of the weights, the seed set, its class and i.

    A class-conditional generator gets the classes of the real images with the same numbers, so that classes have the
    frequencies of the data. If the real images have no classes, it gets those of the training images.

    Args:
        run: the run folder.
        config: its settings.
        checkpoint: a whole one.
        seed_set: "report", or "select" to choose a checkpoint; they draw different latents.
        real: the images that they are compared with.

    Raises:
        Refused: the real images have classes that the generator was not trained with.
    """

    count = None

    def __init__(
        self, run: Path, config: Config, checkpoint: Checkpoint, seed_set: str, real: ShardImages | FolderImages
    ) -> None:
        self.run, self.checkpoint, self.seed_set = run, checkpoint, seed_set
        self.name = f"{run}, checkpoint {checkpoint.path.name}"
        known = class_names(config, checkpoint) if config.network.g_classes else ()
        self.class_source = class_source(config, real) if known else None
        self.classes = self.class_source.classes if self.class_source else ()
        if unknown := [name for name in self.classes if name not in known]:
            raise Refused(
                f"the generator of {run} was not trained with the class {unknown[0]!r} of {real.name}, but with "
                f"{', '.join(known)}"
            )
        self.indices = np.array([*map(known.index, self.classes), -1])  # the generator's, by those of the reals
        self.key = (
            "painted",  # the word is in evaluations.jsonl of earlier versions
            file_sha256(checkpoint.path / MANIFEST),
            seed_set,
            self.class_source.key[1] if self.class_source else "",
        )

    @cached_property
    def trained(self) -> TrainedGenerator:
        """The generator, loaded only in processes that generate images."""
        return TrainedGenerator(self.run, SamplingOptions(checkpoint=self.checkpoint.path.name))

    def images(self, rows: Rows) -> Images:
        """Generate the images of these numbers: (n, h, w, 3)."""
        labels = self.labels(rows)
        key = ("evaluation", self.seed_set)
        chosen = [None] * len(rows) if labels is None else self.indices[labels].tolist()
        # One latent after the other, so that image i does not depend on which images are asked for together.
        latents = (self.trained.sampler.latent(i, key, c) for i, c in zip(rows.tolist(), chosen, strict=True))
        return np.concatenate(list(self.trained.sampler.generate_from(latents)))

    def labels(self, rows: Rows) -> Labels | None:
        """Return the classes of these images, (n,), as indices of `classes`; None: the generator has no classes."""
        # Modulo: more images may be generated than there are real ones.
        return self.class_source.labels(rows % self.class_source.count) if self.class_source else None


def class_source(config: Config, real: ShardImages | FolderImages) -> ShardImages:
    """Return the images whose classes are generated: the real ones, or the training images if these have none."""
    assert config.data
    return real if isinstance(real, ShardImages) and real.classes else ShardImages(Index.open(config.data), "train")
