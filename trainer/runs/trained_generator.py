"""The generator of a run as commands use it: which checkpoint, which labels, which seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from command_line.suggestion import did_you_mean
from shards.dataset.index import DataError, Index
from shards.dataset.labels import Labels
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.migration import load_json
from trainer.networks.base import Latent
from trainer.runs.checkpoint import TENSORS, VALUES, Checkpoint, Damaged, find_checkpoints, newest_or_refuse
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder
from trainer.runs.run_labels import RunLabels, read_labels
from trainer.runs.weight_files import AVERAGE, read_tensors
from trainer.sampling.sampler import Images, LatentCode, Sampler

MOST_SEEDS = 1_000_000
LIST = re.compile(r"[0-9, -]*")
MOST_LIST = 10_000_000  # bytes of a file of seeds
LEAST_TRUNCATION = 0.01  # of z: below, nearly every draw is drawn again


@dataclass(frozen=True)
class SamplingOptions:
    """What sample and interpolate have in common."""

    checkpoint: str | None = None
    """The checkpoint: its folder's name or its pictures seen; default: the newest whole one."""
    label: Annotated[str | None, tyro.conf.arg(name="class", metavar="NAME|INDEX")] = None
    """Generate this class only, of a run that was told classes; default: one after the other. Of several labels it is
    the first one that has classes."""
    labels: Annotated[tuple[str, ...], tyro.conf.arg(name="label", metavar="COLUMN=VALUE")] = ()
    """Generate pictures with these labels, such as style=Baroque year=1650, of a run with --network.label-columns. What
    is not named, or none of it, is as in training pictures."""
    truncation: float | None = None
    """Trade variety for quality. Where the space is z (most networks), noise further from 0 than this is drawn again:
    0.5 is strict, 2 is mild. Where it is w (stylegan2), styles keep this share of their distance from the mean style:
    0.7 is usual, 1 changes nothing. Default: none."""


class TrainedGenerator:
    """Samples from a run as a command asks.

    Args:
        folder: of the run.
        options: checkpoint, labels and truncation.

    Raises:
        Refused: there is no such run, checkpoint, label or truncation.
    """

    def __init__(self, folder: Path, options: SamplingOptions) -> None:
        run = RunFolder(folder)
        config = read_config(run)
        checkpoint = newest_or_refuse(run) if options.checkpoint is None else named_checkpoint(run, options.checkpoint)
        self.images_seen, self.truncation = checkpoint.images_seen, options.truncation
        self.config, self.checkpoint, self.options = config, checkpoint, options
        known = read_labels(run) if config.network.g_conditional and config.network.label_columns else None
        self.known = known
        self.labels = chosen_labels(config, checkpoint, known, options)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.sampler = Sampler(config, device, known.rows if known else None)
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
        latents = (self.sampler.latent(i, ("sample", seed), self.label(i), self.truncation) for i in range(num))
        return np.concatenate(list(self.sampler.generate_from(latents, self.truncation)))

    def label(self, i: int) -> list[float] | None:
        """Return the labels of picture i, or of the picture of seed i; None: nobody has chosen any."""
        return None if self.labels is None else self.labels[i % len(self.labels)].tolist()

    def latent(self, seed: int) -> Latent:
        """Draw the latent of a seed's image."""
        return self.sampler.latent(seed, ("seed",), self.label(seed), self.truncation)

    def seeded(self, seeds: Sequence[int]) -> Iterator[Images]:
        """Generate the pictures of seeds, some at a time."""
        return self.sampler.generate_from(map(self.latent, seeds), self.truncation)

    def codes(self, seeds: Iterable[int]) -> list[LatentCode]:
        """Return the latent codes of seeds' pictures, truncated as asked."""
        return list(self.sampler.latent_codes(map(self.latent, seeds), self.truncation))

    def class_labels(self, name: str) -> Labels:
        """Return the labels, (m, values), of a class by its name or index; what else was asked for stays.

        Raises:
            Refused: the generator is told no classes, or not this one.
        """
        labels = chosen_labels(self.config, self.checkpoint, self.known, replace(self.options, label=name))
        assert labels is not None
        return labels

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


def chosen_labels(
    config: Config, checkpoint: Checkpoint, known: RunLabels | None, options: SamplingOptions
) -> Labels | None:
    """Return the labels that a command asks for, (m, values), to be taken in turn; None: it asks for none.

    Args:
        config, checkpoint: of the run.
        known: what its networks are told, where the columns were chosen.
        options: of the command.

    Raises:
        Refused: the generator is told none, or not these.
    """
    if known is None:
        if options.labels:
            raise Refused("--label: this run has no --network.label-columns, whose names it takes: use --class")
        return None if options.label is None else np.array([[float(class_of(config, checkpoint, options.label))]])
    asked = dict(map(parse_label, options.labels))
    if options.label is not None:
        first = next((column.name for column in known.columns if column.kind == "class"), None)
        if first is None or first in asked:
            raise Refused("--class is the first label that has classes: it is none, or named by --label: leave it out")
        asked[first] = options.label
    return known.choose(asked) if asked else None


def parse_label(text: str) -> tuple[str, str]:
    """Return the column and the value of COLUMN=VALUE.

    Raises:
        Refused: it is not of this form.
    """
    column, equals, value = text.partition("=")
    if not equals:
        raise Refused(f"--label must be COLUMN=VALUE, such as style=Baroque, but is {text!r}")
    return column.strip(), value.strip()


def class_of(config: Config, checkpoint: Checkpoint, asked: str) -> int:
    """Return the index of a class that is given by its name, or by its index.

    Raises:
        Refused: the generator is told no classes, or there is none like it.
    """
    count, names = config.network.classes, class_names(config, checkpoint)
    if not (count and config.network.g_conditional):
        raise Refused("--class: the generator of this run is told no classes; train with --network.g-conditional")
    if asked in names:
        return names.index(asked)
    if asked.isdecimal() and int(asked) < count:
        return int(asked)
    known = f"they are numbered from 0 to {count - 1}" + ("" if names else "; the data that named them is gone")
    raise Refused(f"--class: there is no class {asked!r}; {did_you_mean(asked, names, known)}")


def class_names(config: Config, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the classes' names, if the dataset that the run was trained on is still there."""
    index = trained_on(config, checkpoint)
    return index.classes if index else ()


def trained_on(config: Config, checkpoint: Checkpoint) -> Index | None:
    """Return the dataset that the run was trained on, if it is still there."""
    try:
        index = Index.open(config.data) if config.data else None
    except DataError:
        return None
    return index if index and index.hash == load_json(checkpoint.path / VALUES)["dataset"] else None


def read_list(path: Path) -> str:
    """Read a file of seeds, on one line or many.

    Raises:
        Refused: it cannot be read, is too large or no list.
    """
    try:
        with path.open(encoding="ascii") as file:
            text = file.read(MOST_LIST + 1)
    except (OSError, ValueError) as error:
        raise Refused(f"--seeds {path} cannot be read as a list of seeds: {error}") from error
    if len(text) > MOST_LIST:
        raise Refused(f"--seeds {path} is longer than {MOST_LIST:,} bytes: sample them in several goes")
    listed = ",".join(re.split(r"[\s,]+", text.strip()))
    if not LIST.fullmatch(listed):
        raise Refused(f"--seeds {path} holds no list such as 0-15,42")
    return listed


def parse_seeds(text: str) -> list[int]:
    """Read 0-15,42, or a file that holds such a list, as `trainer seeds` writes it.

    Raises:
        Refused: it is no such list.
    """
    if not LIST.fullmatch(text) and Path(text).is_file():
        text = read_list(Path(text))
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise Refused(f"--seeds must be a list such as 0-15,42, but is {text!r}")
        if (int(last) - int(first) if dash else 0) + len(seeds) >= MOST_SEEDS:
            raise Refused(f"--seeds {text} are more than {MOST_SEEDS:,}: sample them in several goes")
        seeds += range(int(first), int(last or first) + 1)
    return seeds
