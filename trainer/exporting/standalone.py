"""A trained generator in plain PyTorch: this file and those beside it are all that it takes.

    import generator                               # this file

    model = generator.load(".")                    # the folder that holds config.json and model.safetensors
    pictures = model(seeds=[0, 1])                 # uint8, (n, height, width, channels)
    pictures = model(seeds=[7], label="cats", truncation=0.7)

It needs torch, numpy and safetensors. `model.sampler.generator` is the network, a torch.nn.Module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from trainer.core.fields import Refused
from trainer.networks import base
from trainer.networks.dcgan import Generator as Architecture  # another one takes its place when a bundle is written
from trainer.networks.network_settings import NetworkSettings
from trainer.runs.run_labels import parse_labels
from trainer.runs.trained_generator import class_of, parse_label
from trainer.sampling.sampler import Images, Sampler


@dataclass(frozen=True)
class Settings:
    """What is known of the generator."""

    generator: str
    network: NetworkSettings
    seed: int
    """Names the noise from which the statistics of BatchNorm are computed."""
    micro_batch_size: int
    """Pictures that are generated together."""


def build_generator(name: str, settings: NetworkSettings) -> base.Generator:
    """Build the network; its weights are loaded next."""
    return Architecture(settings)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread of the CPU: on more of them sums are added up in another order, and round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Model:
    """The generator with its weights.

    Args:
        folder: that holds config.json and model.safetensors.
        device: where to generate.
        exact: use one thread on a CPU: the pictures are then those of `python -m trainer sample` to the bit, on the
            same kind of machine and version of torch. False: all threads, which may round otherwise.
    """

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu", exact: bool = True) -> None:
        folder = Path(folder)
        config = json.loads((folder / "config.json").read_text())
        known = {field.name for field in fields(NetworkSettings)}
        # Spectral normalisation was carried out when the weights were written.
        network = NetworkSettings(**{name: value for name, value in config["network"].items() if name in known})
        settings = Settings(config["generator"], network, config["seed"], config["micro_batch_size"])
        self.settings, self.exact = settings, exact
        self.classes, self.default_labels = config["classes"], config["labels"]
        self.stored_truncation = self.statistics_of = config["truncation"]
        with_columns = network.label_columns and network.g_conditional
        self.known = parse_labels(json.loads((folder / "labels.json").read_text())) if with_columns else None
        told = self.known.rows if self.known else None
        self.sampler = Sampler(settings, torch.device(device), told)  # type: ignore[arg-type]  # it asks for no more
        self.tensors = load_file(folder / "model.safetensors")
        self.restore()

    def restore(self) -> None:
        """Load the weights, with the buffers that fit the stored truncation."""
        tensors = dict(self.tensors)
        self.sampler.load_whole(tensors, tensors.pop("mean_style", None))
        self.statistics_of = self.stored_truncation

    @torch.no_grad()
    def __call__(
        self,
        seeds: Sequence[int],
        label: str | int | Mapping[str, object] | None = None,
        truncation: float | None = None,
    ) -> Images:
        """Generate the pictures of seeds.

        Args:
            seeds: one for each picture; the picture of a seed does not depend on the other ones.
            label: a class by its name or index; or of a generator that is told several labels, values by their columns.
            truncation: trade variety for quality. Where the code is z, noise further from 0 than this is drawn again;
                where it is w, styles keep this share of their distance from the mean style. None: as config.json says.

        Returns:
            (n, height, width, channels) of uint8.

        Raises:
            Refused: there is no such label.
        """
        if not seeds:
            raise Refused("seeds must name one picture at least")
        chosen = self.rows(label)
        share = self.stored_truncation if truncation is None else truncation
        if self.exact:
            with one_thread():
                return self.generate(seeds, chosen, share)
        return self.generate(seeds, chosen, share)

    def generate(self, seeds: Sequence[int], rows: list[list[float]] | None, truncation: float | None) -> Images:
        """Generate pictures of seeds with rows of labels, taken by the seed in turn."""
        if truncation != self.statistics_of and not self.sampler.generator.interpolates_linearly:
            if truncation == self.stored_truncation:
                self.restore()
            else:
                self.sampler.measure_statistics(truncation)
            self.statistics_of = truncation
        latents = (
            self.sampler.latent(seed, ("seed",), None if rows is None else rows[seed % len(rows)], truncation)
            for seed in seeds
        )
        return np.concatenate(list(self.sampler.generate_from(latents, truncation)))

    def rows(self, label: str | int | Mapping[str, object] | None) -> list[list[float]] | None:
        """Return the labels that are asked for; None: those that nobody has chosen."""
        if label is None:
            asked = dict(map(parse_label, self.default_labels))
            label = asked["class"] if [*asked] == ["class"] and not self.known else (asked or None)
        if label is None:
            return None
        if self.known is None:
            if isinstance(label, Mapping):
                raise Refused("label must be a class, by its name or index: this generator is told nothing else")
            return [[float(class_of(self.settings.network, self.classes, str(label)))]]
        if not isinstance(label, Mapping):
            first = next((column.name for column in self.known.columns if column.kind == "class"), "")
            label = {first: label}
        rows: list[list[float]] = self.known.choose({name: str(value) for name, value in label.items()}).tolist()
        return rows


def load(folder: str | Path, device: str | torch.device = "cpu", exact: bool = True) -> Model:
    """Return the generator of a folder, as `Model` says."""
    return Model(folder, device, exact)
