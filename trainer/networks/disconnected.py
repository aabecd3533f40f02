"""Fully connected networks for data in separate pieces, such as mixtures of narrow modes.

A continuous map of connected noise cannot reach separate pieces without bridges between them, which hold fakes of no
mode (Khayatkhoei et al. 2018, arXiv:1806.00880; Tanielian et al. 2020, arXiv:2006.04596). So this generator sees,
beside z, on which side of fixed random lines z lies: at such a step nothing needs to lie in between. The discriminator
sees, beside x, random Fourier features of it (Tancik et al. 2020, arXiv:2006.10739, §4): plain layers are slow to learn
the high frequencies that narrow modes are made of. No layer is normalised.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from trainer.core.randomness import philox
from trainer.networks import base
from trainer.networks.base import DiscriminatorOutput, Head, Latent, Weights, pack_images, to_float32, weight_matrix
from trainer.networks.mlp import data_dimensions
from trainer.networks.network_settings import NetworkSettings

LAYERS = 3
SIDES = 64
WAVES = 32
LOWEST, HIGHEST = 0.5, 16.0  # radians per unit of the data


def problem(settings: NetworkSettings) -> str | None:
    """Return what these networks cannot do with these settings, or None."""
    return settings.shape_problem("disconnected", (0, 16, 32, 64))


def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    """Draw weights from N(0, 2 / inputs) (He et al. 2015), those of the last layer from N(0, 1 / inputs); no biases."""
    if name.endswith("bias"):
        return 0.0
    gain = 2.0 if name.startswith("layers") else 1.0
    return rng.normal(0.0, (gain / shape[1]) ** 0.5, shape)


def directions(inputs: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw unit vectors: (inputs, count)."""
    drawn = rng.standard_normal((inputs, count))
    unit: npt.NDArray[np.float64] = drawn / np.linalg.norm(drawn, axis=0)
    return unit


def constant(values: npt.NDArray[np.float64]) -> Tensor:
    """Return what is never trained, nor saved: it is the same in every network."""
    return torch.from_numpy(values).float()


def hidden(inputs: int, width: int) -> nn.Sequential:
    """Return the hidden layers."""
    widths = pairwise([inputs] + [width] * LAYERS)
    return nn.Sequential(*(layer for a, b in widths for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2))))


class Sides(nn.Module):
    """z, and beside it sign(<b, z> + c) for fixed unit vectors b and c from N(0, 1)."""

    normals: Tensor
    offsets: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        # By no seed: every run has the same, so a checkpoint need not hold them.
        rng = philox("sides", inputs)
        self.register_buffer("normals", constant(directions(inputs, SIDES, rng)), persistent=False)
        self.register_buffer("offsets", constant(rng.standard_normal(SIDES)), persistent=False)

    def forward(self, z: Float[Tensor, "n z"]) -> Float[Tensor, "n f"]:
        """Compute the features."""
        with torch.autocast(z.device.type, enabled=False):  # bf16 would move the lines
            return torch.cat([z, (z @ self.normals + self.offsets).sign()], 1)


class Waves(nn.Module):
    """x, and beside it sin <b, x> and cos <b, x> for fixed b, whose lengths rise geometrically."""

    frequencies: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        lengths = np.geomspace(LOWEST, HIGHEST, WAVES)
        # As above; geometric lengths give each octave as many waves.
        vectors = directions(inputs, WAVES, philox("waves", inputs)) * lengths
        self.register_buffer("frequencies", constant(vectors), persistent=False)

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n f"]:
        """Compute the features."""
        with torch.autocast(x.device.type, enabled=False):  # phases of many turns are nothing in bf16
            phases = to_float32(x) @ self.frequencies
            return torch.cat([to_float32(x), phases.sin(), phases.cos()], 1)


class Generator(base.Generator):
    """z, and the labels beside it, to points or pictures; tanh for pictures."""

    problem = staticmethod(problem)
    initial_value = staticmethod(initial_value)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        self.sides = Sides(settings.z_dim)
        self.layers = hidden(settings.z_dim + SIDES + settings.g_condition, settings.g_channels)
        self.last = nn.Linear(settings.g_channels, data_dimensions(settings))

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the weights of the layer that takes z."""
        return [weight_matrix(self.layers[0])[:, : self.settings.z_dim]]

    def synthesize(self, code: Float[Tensor, "n z"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate points (n, 2), anywhere, or pictures in [-1, 1]."""
        x = self.sides(code)
        if self.settings.g_condition:
            x = torch.cat([x, self.labels(latent.label).to(x.dtype)], 1)
        out: Tensor = self.last(self.layers(x))
        return out.tanh().unflatten(1, self.settings.data_shape) if self.settings.size else out


class Discriminator(base.Discriminator):
    """Points or pictures to logits."""

    initial_value = staticmethod(initial_value)

    @staticmethod
    def problem(settings: NetworkSettings) -> str | None:
        """Return what this discriminator cannot do with these settings, or None."""
        if settings.mbstd_group:
            return "network.mbstd_group must be 0 for disconnected, whose discriminator has no feature maps"
        return problem(settings)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        inputs = settings.pack * data_dimensions(settings)
        self.waves = Waves(inputs)
        self.layers = hidden(inputs + 2 * WAVES, settings.d_channels)
        self.head = Head(settings.d_channels, settings)

    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge points (n, 2) or pictures: high logits are real ones."""
        out: DiscriminatorOutput = self.head(
            self.layers(self.waves(pack_images(x, self.settings.pack).flatten(1))), label
        )
        return out
