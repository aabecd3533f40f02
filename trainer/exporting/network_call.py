"""A generator as a function of plain tensors, as graph formats want it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.networks import build_generator
from trainer.networks.base import Generator, Latent
from trainer.networks.network_settings import NetworkSettings
from trainer.runs.bundle import plain_state
from trainer.runs.trained_generator import TrainedGenerator

CHECKED = 3  # pictures that a written file is compared on; another number than it was traced with


def multiplied(tensors: Sequence[Tensor], factors: Sequence[Tensor | float]) -> list[Tensor]:
    """Multiply each tensor by a factor of its own."""
    return [tensor * factor for tensor, factor in zip(tensors, factors, strict=True)]


aten = torch.ops.aten
# torch's one operation for many tensors is known to few runtimes.
FOREACH = {aten._foreach_mul.ScalarList: multiplied, aten._foreach_mul.List: multiplied}


class TensorGenerator(nn.Module):
    """Calls a generator with z, labels, the share of truncation where its code is w, and its other draws, in order.

    Pictures are in [-1, 1], or about it where the network does not squash them.
    """

    middle: Tensor | None

    def __init__(self, generator: Generator, middle: Tensor | None, extra: Sequence[str]) -> None:
        super().__init__()
        self.generator, self.extra = generator, tuple(extra)
        self.register_buffer("middle", middle)

    def forward(self, z: Float[Tensor, "n z"], label: Tensor, *rest: Tensor) -> Float[Tensor, "n c h w"]:
        """Generate pictures."""
        draws = dict(zip(self.extra, rest[len(rest) - len(self.extra) :], strict=True))
        latent = Latent(z, label, draws)
        code = self.generator.latent_code(latent)
        if self.middle is not None:
            code = self.middle + (code - self.middle) * rest[0]
        pictures: Tensor = self.generator.synthesize(code, latent)
        return pictures


@dataclass(frozen=True)
class NetworkCall:
    """A function of tensors, their names, and pictures to compare with."""

    function: TensorGenerator
    names: tuple[str, ...]
    """Of the inputs: z, label, truncation where the code is w, and the other draws."""
    inputs: tuple[Tensor, ...]
    """Of two pictures, to trace with."""
    other_inputs: tuple[Tensor, ...]
    """Of CHECKED others, to compare on."""

    @classmethod
    def of(cls, trained: TrainedGenerator) -> NetworkCall:
        """Make it of a trained generator, on the CPU, with plain layers."""
        sampler = trained.sampler
        network = plain_generator(sampler.config.generator, sampler.settings, sampler.generator)
        middle = sampler.mean_code().cpu() if network.interpolates_linearly else None
        latents = [trained.latent(seed) for seed in range(2 + CHECKED)]
        extra = tuple(latents[0].extra)
        names = ("z", "label", *(("truncation",) if middle is not None else ()), *extra)
        share = 1.0 if trained.truncation is None else trained.truncation

        def tensors(some: Sequence[Latent]) -> tuple[Tensor, ...]:
            latent = Latent.cat(some)
            shares = (torch.tensor(share),) if middle is not None else ()
            label = latent.label if trained.weights.known else latent.label.long()
            return (latent.z, label, *shares, *latent.extra.values())

        function = TensorGenerator(network, middle, extra).eval()
        return cls(function, names, tensors(latents[:2]), tensors(latents[2:]))

    @torch.no_grad()
    def expected(self) -> Float[Tensor, "n c h w"]:
        """Return what the generator itself makes of the inputs to compare on."""
        pictures: Tensor = self.function(*self.other_inputs)
        return pictures

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The function as a graph for any number of pictures, by operations that other runtimes have."""
        batch = torch.export.Dim("n", min=1)
        free = tuple({} if name == "truncation" else {0: batch} for name in self.names)
        table = torch.export.default_decompositions()
        table.update(FOREACH)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, about its own inside
            # The inputs after the label are one group, as `forward` has them.
            shapes = (*free[:2], *([free[2:]] if len(free) > 2 else []))
            traced = torch.export.export(self.function, self.inputs, dynamic_shapes=shapes)
            program: torch.export.ExportedProgram = traced.run_decompositions(table)
            return program


def plain_generator(name: str, settings: NetworkSettings, generator: Generator) -> Generator:
    """Return a generator whose layers are plain ones: spectral normalisation is carried out."""
    network = build_generator(name, replace(settings, g_spectral_norm=False))
    network.load_state_dict(plain_state(generator))
    network.requires_grad_(False)
    return network.eval()
