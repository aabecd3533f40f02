"""A trained generator's weights where they lie: in a checkpoint of a run, or in a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from shards.dataset.index import DataError, Index
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.core.migration import load_json
from trainer.networks import build_discriminator
from trainer.networks.network_settings import NetworkSettings
from trainer.runs.bundle import (
    MEAN_STYLE,
    BundleConfig,
    check_files,
    check_shapes,
    plain_state,
    read_bundle,
    stored_shapes,
)
from trainer.runs.bundle_files import D_WEIGHTS, WEIGHTS, is_bundle
from trainer.runs.checkpoint import MANIFEST, TENSORS, VALUES, Checkpoint, Damaged, find_checkpoints, newest_or_refuse
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder
from trainer.runs.run_labels import RunLabels, read_labels
from trainer.runs.weight_files import AVERAGE, DISCRIMINATOR, GENERATOR, read_tensors
from trainer.sampling.sampler import Sampler


@dataclass(frozen=True)
class TrainedWeights:
    """A checkpoint of a run, or a bundle, with what must be known to generate from it."""

    folder: Path
    config: Config
    checkpoint: Checkpoint | None
    """Of a run."""
    bundle: BundleConfig | None
    known: RunLabels | None
    """The labels that the generator is told, where their columns were chosen."""

    @classmethod
    def open(cls, folder: Path, checkpoint: str | None = None) -> TrainedWeights:
        """Open a run's checkpoint (default: the newest whole one) or a bundle.

        Raises:
            Refused: there is none, or it is damaged.
        """
        if is_bundle(folder):
            if checkpoint is not None:
                raise Refused(f"{folder} is a bundle, which holds no checkpoints: leave --checkpoint out")
            bundle = read_bundle(folder)
            file = folder / WEIGHTS
            check_shapes(bundle, stored_shapes(file), file)  # before a network of that size is built
            return cls(folder, bundle.config, None, bundle, labels_of(folder, bundle.network))
        run = RunFolder(folder)
        config = read_config(run)
        found = newest_or_refuse(run) if checkpoint is None else named_checkpoint(run, checkpoint)
        return cls(folder, config, found, None, labels_of(folder, config.network))

    @property
    def images_seen(self) -> int:
        """Real pictures that the discriminator had been shown."""
        if self.bundle:
            return self.bundle.images_seen
        assert self.checkpoint
        return self.checkpoint.images_seen

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.folder}, checkpoint {self.checkpoint.path.name}" if self.checkpoint else str(self.folder)

    @property
    def key(self) -> str:
        """A hash of it: equal for equal weights."""
        return file_sha256(self.checkpoint.path / MANIFEST if self.checkpoint else self.folder / WEIGHTS)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, as far as the bundle or the dataset of the run tells them."""
        if self.bundle:
            return self.bundle.classes
        index = self.trained_on()
        return index.classes if index else ()

    def trained_on(self) -> Index | None:
        """Return the dataset that the run was trained on, if it is still there."""
        return trained_on(self.config, self.checkpoint) if self.checkpoint else None

    def load_into(self, sampler: Sampler, truncation: float | None, averaged: bool = True) -> None:
        """Load the averaged weights, or those that were trained last, and the buffers that fit them and a truncation.

        Raises:
            Refused: they cannot be read, or do not fit the settings.
        """
        if self.bundle:
            if not averaged:
                raise Refused(f"--no-ema: {self.folder} is a bundle, which holds one set of weights: leave it out")
            tensors = self.bundle_tensors()
            sampler.load_whole(tensors, tensors.pop(MEAN_STYLE, None))
            if truncation != self.bundle.truncation and not sampler.generator.interpolates_linearly:
                sampler.measure_statistics(truncation)
            return
        assert self.checkpoint
        prefix = AVERAGE if averaged else GENERATOR
        weights = read_tensors(self.checkpoint.path / TENSORS, (prefix,))
        sampler.load({name.removeprefix(prefix): t for name, t in weights.items()}, truncation)

    def discriminator_state(self) -> dict[str, Tensor] | None:
        """Return the discriminator's tensors with spectral normalisation carried out; None: a bundle without one.

        Raises:
            Refused: they cannot be read.
        """
        if self.bundle:
            file = self.folder / D_WEIGHTS
            check_files(self.folder, D_WEIGHTS)
            return read_tensors(file, ("",)) if file.exists() else None
        assert self.checkpoint
        stored = read_tensors(self.checkpoint.path / TENSORS, (DISCRIMINATOR,))
        network = build_discriminator(self.config.discriminator, self.config.network)
        network.load_state_dict({name.removeprefix(DISCRIMINATOR): t for name, t in stored.items()})
        return plain_state(network)

    def bundle_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a bundle.

        Raises:
            Refused: they are damaged.
        """
        check_files(self.folder, WEIGHTS)
        return read_tensors(self.folder / WEIGHTS, ("",))


def labels_of(folder: Path, network: NetworkSettings) -> RunLabels | None:
    """Return the labels that a generator is told, where their columns were chosen."""
    return read_labels(RunFolder(folder)) if network.g_conditional and network.label_columns else None


def named_checkpoint(run: RunFolder, name: str) -> Checkpoint:
    """Return the checkpoint of this name, or of so many pictures seen.

    Raises:
        Refused: there is none, or it is damaged.
    """
    known = find_checkpoints(run.checkpoints)
    wanted = [c for c in known if name == c.path.name or (name.isdecimal() and int(name) == c.images_seen)]
    if not wanted:
        there = ", ".join(c.path.name for c in known) or "none"
        raise Refused(f"{run.path} has no checkpoint {name!r}; there is {there}")
    try:
        wanted[0].verify()
    except Damaged as error:
        raise Refused(f"the checkpoint {wanted[0].path} is damaged: {error}") from error
    return wanted[0]


def trained_on(config: Config, checkpoint: Checkpoint) -> Index | None:
    """Return the dataset that the run was trained on, if it is still there."""
    try:
        index = Index.open(config.data) if config.data else None
    except DataError:
        return None
    return index if index and index.hash == load_json(checkpoint.path / VALUES)["dataset"] else None
