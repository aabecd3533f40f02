"""DCGAN (Radford, Metz and Chintala 2016, arXiv:1511.06434), for 16 to 256 pixels."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor, nn

from trainer.networks import base
from trainer.networks.base import DiscriminatorOutput, Head, Latent, Weights, minibatch_std, pack_images, weight_matrix
from trainer.networks.batch_norm import BatchNorm2d, ConditionalBatchNorm2d
from trainer.networks.network_settings import NetworkSettings


def widths(settings: NetworkSettings) -> list[int]:
    """Return multiples of the base width, from the picture's side to the 4 x 4 side."""
    return [2**i for i in range(settings.nominal.bit_length() - 3)]


def problem(settings: NetworkSettings) -> str | None:
    """Return what DCGAN cannot do with these settings, or None."""
    return settings.shape_problem("dcgan", (16, 32, 64, 128, 256))


def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    """Draw weights from N(0, 0.02), BatchNorm's gains from N(1, 0.02); biases are zero (§3)."""
    if name.endswith("bias"):
        return 0.0
    return rng.normal(1.0 if len(shape) == 1 else 0.0, 0.02, shape)


class Generator(base.Generator):
    """Noise to pictures: fractionally strided convolutions, BatchNorm and ReLU, tanh at the end (§3).

    Told labels, its BatchNorm is conditional.
    """

    problem = staticmethod(problem)
    initial_value = staticmethod(initial_value)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        channels = [settings.g_channels * width for width in reversed(widths(settings))]
        # The first makes the base's places of one, each other doubles the side. BatchNorm would take a bias away again.
        convolutions = [nn.ConvTranspose2d(settings.z_dim, channels[0], settings.base, 1, 0, bias=False)]
        convolutions += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(channels)]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList(ConditionalBatchNorm2d(c, settings.g_condition) for c in channels)
        self.last = nn.ConvTranspose2d(channels[-1], settings.channels, 4, 2, 1, bias=False)

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the weights of the layer that takes z."""
        return [weight_matrix(self.convolutions[0])]

    def synthesize(self, code: Float[Tensor, "n z"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate pictures in [-1, 1]."""
        condition = self.labels(latent.label).to(code.dtype) if self.settings.g_condition else None
        x = code[:, :, None, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x), condition).relu()
        out: Tensor = self.last(x).tanh()
        return out


class Discriminator(base.Discriminator):
    """Pictures to logits: strided convolutions, BatchNorm on all but the first and the last, LeakyReLU (§3).

    Without BatchNorm the layers have biases: else a grey picture, which is all zeros, could not be told to be fake.
    """

    problem = staticmethod(problem)
    initial_value = staticmethod(initial_value)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        channels, bias = [settings.d_channels * width for width in widths(settings)], not settings.d_batch_norm
        layers: list[nn.Module] = [nn.Conv2d(settings.d_inputs, channels[0], 4, 2, 1, bias=bias), nn.LeakyReLU(0.2)]
        for before, after in pairwise(channels):
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=bias))
            layers += [BatchNorm2d(after)] if settings.d_batch_norm else []
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)
        # The paper's last layer is a 4 x 4 convolution of 4 x 4 places: a linear layer on all of them.
        places = math.prod(settings.base)
        self.head = Head(places * (channels[-1] + bool(settings.mbstd_group)), settings, bias)

    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge pictures: high logits are real ones."""
        features = minibatch_std(self.layers(pack_images(x, self.settings.pack)), self.settings.mbstd_group)
        out: DiscriminatorOutput = self.head(features.flatten(1), label)
        return out
