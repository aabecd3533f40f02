"""A generator as it is served: any seed, label, truncation and direction, a batch of whatever is wanted at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from shards.dataset.labels import Labels
from trainer.core.fields import Refused
from trainer.core.randomness import normal, philox
from trainer.networks.base import Latent
from trainer.runs.trained_generator import (
    LEAST_TRUNCATION,
    SamplingOptions,
    TrainedGenerator,
    chosen_labels,
    with_defaults,
)
from trainer.sampling.directions import deviations, find_directions, move, parse_layers
from trainer.sampling.sampler import Images, LatentCode
from trainer.serving.points import ALL, Point, Style, count_layers, locate

DIRECTIONS = 8
CODES = 512  # from which the deviations of the code along directions are estimated
KEPT_TRUNCATIONS = 32  # whose BatchNorm statistics are kept
KEPT_STYLES = 256


class ServedGenerator:
    """Generates pictures that many people ask for, each as if it were alone.

    Args:
        folder: of the run.
        checkpoint: its name; None: what the folder holds is no run with checkpoints.
        batch_size: pictures at once; every batch is filled up to it, as kernels may round otherwise in smaller ones.

    Raises:
        Refused: there is no such generator, or it generates no pictures.
    """

    def __init__(self, folder: Path, checkpoint: str | None, batch_size: int) -> None:
        self.trained = TrainedGenerator(folder, SamplingOptions(checkpoint=checkpoint))
        self.sampler = self.trained.sampler
        self.network = self.sampler.config.network
        if self.network.size == 0:
            raise Refused(f"the generator of {folder} makes points in the plane, and no pictures")
        self.sampler.batch_size = batch_size
        self.linear = self.sampler.generator.interpolates_linearly
        # What belongs to each truncation besides the weights; None: to none.
        self.loaded = self.statistics_of(None)
        self.buffers: OrderedDict[float | None, dict[str, Tensor]] = OrderedDict({self.loaded: self.copy_of_buffers()})
        self.told: OrderedDict[Style, Labels | None] = OrderedDict()
        self.directions, self.deviations = self.find_directions()
        self.layers = count_layers(self.sampler, self.codes({0}, Style())[0][0])
        self.classes = self.class_names()

    def find_directions(self) -> tuple[Tensor, Tensor]:
        """Return the strongest directions of the code, (num, code), and the deviation of codes along each."""
        generator, dim = self.sampler.generator, self.network.z_dim
        if not generator.code_layers():
            return torch.zeros(0, dim), torch.zeros(0)
        directions = find_directions(generator, min(DIRECTIONS, dim))
        many = Latent(normal(philox("served", "codes"), CODES, dim), self.sampler.labels(range(CODES)))
        return directions, deviations(generator.latent_code(self.sampler.bring(many)), directions)

    def class_names(self) -> list[str]:
        """Return the classes' names, or their numbers where the data that named them is gone; none: it is told none."""
        if not self.network.g_conditional or self.trained.weights.known:
            return []
        count, names = self.network.classes, self.trained.weights.classes
        return list(names) if len(names) == count else [str(k) for k in range(count)]

    def check(self, style: Style, points: Sequence[Point]) -> None:
        """Refuse what this generator cannot paint.

        Raises:
            Refused: naming the first.
        """
        self.labels(style)
        least = 0.0 if self.linear else LEAST_TRUNCATION
        if style.truncation is not None and style.truncation < least:
            raise Refused(f"truncation must be at least {least:g} for this network, but is {style.truncation:g}")
        for point in points:
            if point.layers != ALL:
                parse_layers(point.layers, self.layers)
            for k, _ in point.moves:
                if k >= len(self.directions):
                    raise Refused(f"move: this generator has {len(self.directions)} directions, but not number {k}")

    def labels(self, style: Style) -> Labels | None:
        """Return the rows of labels that a style asks for, to be taken in turn; None: it asks for none."""
        key = Style(style.label, style.labels)
        if key not in self.told:
            options, weights = SamplingOptions(label=style.label, labels=style.labels), self.trained.weights
            if weights.bundle:
                options = with_defaults(weights.bundle, options, weights.known is not None)
            self.told[key] = chosen_labels(weights, options)
            if len(self.told) > KEPT_STYLES:
                self.told.popitem(last=False)
        return self.told[key]

    def truncation(self, asked: float | None) -> float | None:
        """Return a truncation that is asked for, or what a bundle says where none is; None: none."""
        return self.trained.truncation if asked is None else asked

    def statistics_of(self, asked: float | None) -> float | None:
        """Return the truncation with whose noise BatchNorm's statistics are computed; None: with any."""
        return self.truncation(asked) if self.sampler.statistics.wants_standing and not self.linear else None

    def use_statistics(self, truncation: float | None) -> None:
        """Put the buffers that belong to a truncation in place; they are computed the first time, which takes long."""
        if truncation == self.loaded:
            return
        generator = self.sampler.generator
        if truncation not in self.buffers:
            self.sampler.measure_statistics(truncation)
            self.buffers[truncation] = self.copy_of_buffers()
            if len(self.buffers) > KEPT_TRUNCATIONS:
                del self.buffers[next(key for key in self.buffers if key is not None)]
        for name, buffer in generator.named_buffers():
            buffer.copy_(self.buffers[truncation][name])
        self.loaded = truncation

    def copy_of_buffers(self) -> dict[str, Tensor]:
        """Return a copy of the generator's buffers by name."""
        return {name: buffer.clone() for name, buffer in self.sampler.generator.named_buffers()}

    def codes(self, seeds: set[int], style: Style) -> dict[int, LatentCode]:
        """Return the latent code of each seed."""
        told, ordered, truncation = self.labels(style), sorted(seeds), self.truncation(style.truncation)
        chosen = [None if told is None else told[seed % len(told)].tolist() for seed in ordered]
        latents = (
            self.sampler.latent(seed, ("seed",), label, truncation) for seed, label in zip(ordered, chosen, strict=True)
        )
        return dict(zip(ordered, self.sampler.latent_codes(latents, truncation), strict=True))

    def generate(self, wanted: Sequence[tuple[Style, Point]]) -> list[Images]:
        """Generate the pictures of points, of which the truncations want the same statistics: (h, w, c) each."""
        self.use_statistics(self.statistics_of(wanted[0][0].truncation))
        seeds: dict[Style, set[int]] = {}
        for style, point in wanted:
            seeds.setdefault(style, set()).update(point.seeds())
        codes = {style: self.codes(found, style) for style, found in seeds.items()}
        placed = (self.placed(point, codes[style]) for style, point in wanted)
        return [picture for some in self.sampler.synthesize(placed) for picture in some]

    def placed(self, point: Point, codes: dict[int, LatentCode]) -> LatentCode:
        """Return the latent code of a point."""
        code, latent = locate(self.sampler, point, codes.__getitem__)
        for k, far in point.moves:
            code = move(code, self.directions[k], far * float(self.deviations[k]))
        return code, latent
