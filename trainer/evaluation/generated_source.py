"""Images that a run's generator makes, by number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shards.dataset.labels import Column
from trainer.core.fields import Refused
from trainer.evaluation.source import FolderImages, Labels, Rows, ShardImages
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator
from trainer.runs.trained_weights import TrainedWeights
from trainer.sampling.sampler import Images


class GeneratedImages:
    """Images of a run's averaged generator, or of a bundle's: image i follows from weights, seed set, labels and i.

    A conditional generator gets the labels of the real images with the same numbers, so that labels have the
    frequencies of the data. If the real images have none, it gets those of the training images.

    Args:
        weights: of a checkpoint or of a bundle.
        seed_set: "report", or "select" to choose a checkpoint; they draw different latents.
        real: the images that they are compared with.

    Raises:
        Refused: the real images have classes that the generator was not trained with.
    """

    count = None

    def __init__(self, weights: TrainedWeights, seed_set: str, real: ShardImages | FolderImages) -> None:
        self.weights, self.seed_set, self.name = weights, seed_set, weights.name
        known = told_columns(weights)
        self.source = label_source(weights, real) if known else None
        self.classes = self.source.classes if self.source else ()
        self.indices = [
            class_indices(
                ours, theirs, f"the generator of {weights.folder} was not trained with the class {{!r}} of {real.name}"
            )
            for ours, theirs in zip(known, self.source.reader.labels.columns if self.source else (), strict=False)
        ]
        self.key = (
            "painted",  # the word is in evaluations.jsonl of earlier versions
            weights.key,
            seed_set,
            self.source.key[1] if self.source else "",
        )

    @cached_property
    def trained(self) -> TrainedGenerator:
        """The generator, loaded only in processes that generate images."""
        checkpoint = self.weights.checkpoint
        return TrainedGenerator(self.weights.folder, SamplingOptions(checkpoint.path.name if checkpoint else None))

    def images(self, rows: Rows) -> Images:
        """Generate the images of these numbers: (n, h, w, 3)."""
        key = ("evaluation", self.seed_set)
        chosen = self.told(rows)
        # One latent after the other, so that image i does not depend on which images are asked for together.
        sampler, truncation = self.trained.sampler, self.trained.truncation
        latents = (sampler.latent(i, key, c, truncation) for i, c in zip(rows.tolist(), chosen, strict=True))
        return np.concatenate(list(sampler.generate_from(latents, truncation)))

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


def told_columns(weights: TrainedWeights) -> tuple[Column, ...]:
    """Return the labels that a generator is told; none: it is told none, or nobody knows their names."""
    if weights.known:
        return weights.known.columns
    names = weights.classes if weights.config.network.g_conditional else ()
    return (Column("", "class", names),) if names else ()


def label_source(weights: TrainedWeights, real: ShardImages | FolderImages) -> ShardImages | None:
    """Return the images whose labels are generated: the real ones, or the training images if these have none.

    None: the training images are not there any more.
    """
    names = weights.config.network.label_names
    if isinstance(real, ShardImages) and (real.columns == names if names else real.classes):
        return real
    index = weights.trained_on()
    return ShardImages(index, "train", columns=names) if index else None


def class_indices(ours: Column, theirs: Column, refusal: str) -> npt.NDArray[np.int64]:
    """Return the generator's number of each class of the reals, and at the end -1, for none.

    Raises:
        Refused: there is one that the generator does not know.
    """
    if unknown := [name for name in theirs.classes if name not in ours.classes]:
        raise Refused(f"{refusal.format(unknown[0])}, but with {', '.join(ours.classes)}")
    return np.array([*map(ours.classes.index, theirs.classes), -1])
