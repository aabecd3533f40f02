"""The generator of a run as commands use it: which checkpoint, which class, which seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from command_line.suggestion import did_you_mean
from shards.dataset.index import DataError, Index
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.migration import load_json
from trainer.networks.base import Latent
from trainer.runs.checkpoint import TENSORS, VALUES, Checkpoint, Damaged, find_checkpoints, newest_or_refuse
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder
from trainer.runs.weight_files import AVERAGE, read_tensors
from trainer.sampling.sampler import Images, Sampler

MOST_SEEDS = 1_000_000
LEAST_TRUNCATION = 0.01  # of z: below, nearly every draw is drawn again


@dataclass(frozen=True)
class SamplingOptions:
    """What sample and interpolate have in common."""

    checkpoint: str | None = None
    """The checkpoint: its folder's name or its pictures seen; default: the newest whole one."""
    label: Annotated[str | None, tyro.conf.arg(name="class", metavar="NAME|INDEX")] = None
    """Generate this class only, of a run that was told classes; default: one after the other."""
    truncation: float | None = None
    """Trade variety for quality. Where the space is z (most networks), noise further from 0 than this is drawn again:
    0.5 is strict, 2 is mild. Where it is w (stylegan2), styles keep this share of their distance from the mean style:
    0.7 is usual, 1 changes nothing. Default: none."""


class TrainedGenerator:
    """Samples from a run as a command asks.

    Args:
        folder: of the run.
        options: checkpoint, class and truncation.

    Raises:
        Refused: there is no such run, checkpoint, class or truncation.
    """

    def __init__(self, folder: Path, options: SamplingOptions) -> None:
        run = RunFolder(folder)
        config = read_config(run)
        checkpoint = newest_or_refuse(run) if options.checkpoint is None else named_checkpoint(run, options.checkpoint)
        self.images_seen, self.truncation = checkpoint.images_seen, options.truncation
        self.label = None if options.label is None else class_of(config, checkpoint, options.label)
        self.sampler = Sampler(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.check_truncation()
        ema = read_tensors(checkpoint.path / TENSORS, (AVERAGE,))
        self.sampler.load({name.removeprefix(AVERAGE): t for name, t in ema.items()}, self.truncation)

    def check_truncation(self) -> None:
        """Refuse a truncation that leaves nothing to draw."""
        least = 0.0 if self.sampler.generator.interpolates_linearly else LEAST_TRUNCATION
        if self.truncation is not None and not least <= self.truncation < math.inf:
            raise Refused(f"--truncation must be at least {least:g} for this network, but is {self.truncation:g}")

    def numbered(self, num: int, seed: int) -> Images:
        """Return `num` images of one noise seed."""
        labels = None if self.label is None else [self.label] * num
        return self.sampler.generate(num, "sample", seed, labels=labels, truncation=self.truncation)

    def latent(self, seed: int) -> Latent:
        """Draw the latent of a seed's image."""
        return self.sampler.latent(seed, ("seed",), self.label, self.truncation)

    def seeded(self, seeds: Sequence[int]) -> Iterator[Images]:
        """Generate the pictures of seeds, some at a time."""
        return self.sampler.generate_from(map(self.latent, seeds), self.truncation)

    def way(self, seeds: Sequence[int], steps: int, loop: bool) -> Images:
        """Interpolate through the images of seeds."""
        return np.concatenate(list(self.sampler.interpolate([*map(self.latent, seeds)], steps, loop, self.truncation)))


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


def class_of(config: Config, checkpoint: Checkpoint, asked: str) -> int:
    """Return the index of a class that is given by its name, or by its index.

    Raises:
        Refused: the generator is told no classes, or there is none like it.
    """
    count, names = config.network.g_classes, class_names(config, checkpoint)
    if not count:
        raise Refused("--class: the generator of this run is told no classes; train with --network.g-conditional")
    if asked in names:
        return names.index(asked)
    if asked.isdecimal() and int(asked) < count:
        return int(asked)
    known = f"they are numbered from 0 to {count - 1}" + ("" if names else "; the data that named them is gone")
    raise Refused(f"--class: there is no class {asked!r}; {did_you_mean(asked, names, known)}")


def class_names(config: Config, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the classes' names, if the dataset that the run was trained on is still there."""
    try:
        index = Index.open(config.data) if config.data else None
    except DataError:
        return ()
    trained_on = load_json(checkpoint.path / VALUES)["dataset"]
    return index.classes if index and index.hash == trained_on else ()


def parse_seeds(text: str) -> list[int]:
    """Read 0-15,42.

    Raises:
        Refused: it is no such list.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise Refused(f"--seeds must be a list such as 0-15,42, but is {text!r}")
        if (int(last) - int(first) if dash else 0) + len(seeds) >= MOST_SEEDS:
            raise Refused(f"--seeds {text} are more than {MOST_SEEDS:,}: sample them in several goes")
        seeds += range(int(first), int(last or first) + 1)
    return seeds
