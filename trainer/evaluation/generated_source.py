"""Images that a run's generator makes, by number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.dataset.labels import Column
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.evaluation.source import FolderImages, Labels, Rows, ShardImages
from trainer.runs.checkpoint import MANIFEST, Checkpoint
from trainer.runs.run_folder import RunFolder
from trainer.runs.run_labels import read_labels
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator, class_names, trained_on
from trainer.sampling.sampler import Images


class GeneratedImages:
    """Images of a run's averaged generator: image i is a function of the weights, the seed set, its labels and i.

    A conditional generator gets the labels of the real images with the same numbers, so that labels have the
    frequencies of the data. If the real images have none, it gets those of the training images.

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
        known = told_columns(RunFolder(run), config, checkpoint)
        self.source = label_source(config, checkpoint, real) if known else None
        self.classes = self.source.classes if self.source else ()
        self.indices = [
            class_indices(ours, theirs, f"the generator of {run} was not trained with the class {{!r}} of {real.name}")
            for ours, theirs in zip(known, self.source.reader.labels.columns if self.source else (), strict=False)
        ]
        self.key = (
            "painted",  # the word is in evaluations.jsonl of earlier versions
            file_sha256(checkpoint.path / MANIFEST),
            seed_set,
            self.source.key[1] if self.source else "",
        )

    @cached_property
    def trained(self) -> TrainedGenerator:
        """The generator, loaded only in processes that generate images."""
        return TrainedGenerator(self.run, SamplingOptions(checkpoint=self.checkpoint.path.name))

    def images(self, rows: Rows) -> Images:
        """Generate the images of these numbers: (n, h, w, 3)."""
        key = ("evaluation", self.seed_set)
        chosen = self.told(rows)
        # One latent after the other, so that image i does not depend on which images are asked for together.
        latents = (self.trained.sampler.latent(i, key, c) for i, c in zip(rows.tolist(), chosen, strict=True))
        return np.concatenate(list(self.trained.sampler.generate_from(latents)))

    def told(self, rows: Rows) -> Sequence[list[float] | None]:
        """Return what the generator is told for each of these images; None: nothing of the data's."""
        if self.source is None:
            return [None] * len(rows)
        # Modulo: more images may be generated than there are real ones.
        labels, first = self.source.told(rows % self.source.count), 0
        for column, indices in zip(self.source.reader.labels.columns, self.indices, strict=True):
            if column.kind == "class":
                labels[:, first] = indices[labels[:, first].astype(np.int64)]
            first += column.length
        return list(labels.tolist())

    def labels(self, rows: Rows) -> Labels | None:
        """Return the classes of these images, (n,), as indices of `classes`; None: the generator has no classes."""
        return self.source.labels(rows % self.source.count) if self.source else None


def told_columns(run: RunFolder, config: Config, checkpoint: Checkpoint) -> tuple[Column, ...]:
    """Return the labels that the generator of a run is told; none: it is told none, or nobody knows their names."""
    if not config.network.g_conditional:
        return ()
    if config.network.label_columns:
        return read_labels(run).columns
    names = class_names(config, checkpoint)
    return (Column("", "class", names),) if names else ()


def label_source(config: Config, checkpoint: Checkpoint, real: ShardImages | FolderImages) -> ShardImages | None:
    """Return the images whose labels are generated: the real ones, or the training images if these have none.

    None: the training images are not there any more.
    """
    names = config.network.label_names
    if isinstance(real, ShardImages) and (real.columns == names if names else real.classes):
        return real
    index = trained_on(config, checkpoint)
    return ShardImages(index, "train", columns=names) if index else None


def class_indices(ours: Column, theirs: Column, refusal: str) -> npt.NDArray[np.int64]:
    """Return the generator's number of each class of the reals, and at the end -1, for none.

    Raises:
        Refused: there is one that the generator does not know.
    """
    if unknown := [name for name in theirs.classes if name not in ours.classes]:
        raise Refused(f"{refusal.format(unknown[0])}, but with {', '.join(ours.classes)}")
    return np.array([*map(ours.classes.index, theirs.classes), -1])
