"""Fully connected networks: PacGAN's protocol for mixtures of Gaussians (Lin et al. 2018, arXiv:1712.04086).

That is g_channels 400, d_channels 200, z_dim 2 and points in the plane (size 0). Small pictures are generated as well.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from trainer.networks import base
from trainer.networks.base import DiscriminatorOutput, Head, Latent, Weights, pack_images, weight_matrix
from trainer.networks.batch_norm import BatchNorm2d
from trainer.networks.network_settings import NetworkSettings

G_LAYERS = 4
D_LAYERS = 3
PIECES = 5  # linear functions in a maxout unit, as in the protocol


def problem(settings: NetworkSettings) -> str | None:
    """Return what fully connected networks cannot do with these settings, or None."""
    return settings.shape_problem("mlp", (0, 16, 32, 64))


def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    """Draw weights from N(0, 0.02); BatchNorm's gains are one, biases zero."""
    if name.endswith("bias"):
        return 0.0
    return 1.0 if len(shape) == 1 else rng.normal(0.0, 0.02, shape)


def data_dimensions(settings: NetworkSettings) -> int:
    """Return the numbers that a point or a picture consists of."""
    return math.prod(settings.data_shape)


class Generator(base.Generator):
    """z, and the labels beside it, to points or pictures: linear layers, BatchNorm and ReLU; tanh for pictures."""

    problem = staticmethod(problem)
    initial_value = staticmethod(initial_value)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        layers: list[nn.Module] = []
        for before, after in pairwise([settings.z_dim + settings.g_condition] + [settings.g_channels] * G_LAYERS):
            # BatchNorm would take a bias away again.
            layers += [nn.Linear(before, after, bias=False), BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(settings.g_channels, data_dimensions(settings))

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the weights of the layer that takes z."""
        return [weight_matrix(self.layers[0])[:, : self.settings.z_dim]]

    def synthesize(self, code: Float[Tensor, "n z"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate points (n, 2), anywhere, or pictures in [-1, 1]."""
        if self.settings.g_condition:
            code = torch.cat([code, self.labels(latent.label).to(code.dtype)], 1)
        x: Tensor = self.last(self.layers(code))
        return x.tanh().unflatten(1, self.settings.data_shape) if self.settings.size else x


class Maxout(nn.Module):
    """The largest of several linear functions, for each output (Goodfellow et al. 2013)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs * PIECES)

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """Compute the outputs."""
        out: Tensor = self.linear(x).unflatten(1, (-1, PIECES)).amax(2)
        return out


class Discriminator(base.Discriminator):
    """Points or pictures to logits by layers of maxout units."""

    initial_value = staticmethod(initial_value)

    @staticmethod
    def problem(settings: NetworkSettings) -> str | None:
        """Return what the fully connected discriminator cannot do with these settings, or None."""
        if settings.mbstd_group:
            return "network.mbstd_group must be 0 for mlp, whose discriminator has no feature maps"
        return problem(settings)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        widths = [settings.pack * data_dimensions(settings)] + [settings.d_channels] * D_LAYERS
        self.layers = nn.Sequential(*(Maxout(before, after) for before, after in pairwise(widths)))
        self.head = Head(settings.d_channels, settings)

    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge points (n, 2) or pictures: high logits are real ones."""
        out: DiscriminatorOutput = self.head(self.layers(pack_images(x, self.settings.pack).flatten(1)), label)
        return out
