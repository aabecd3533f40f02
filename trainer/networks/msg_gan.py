"""MSG-GAN (Karnewar and Wang 2020, arXiv:1903.06048): the discriminator sees what the generator makes at every side.

Gradients reach each side of the generator directly. The networks are those of the first author's PyTorch code, ProGAN's
without its normalisations: a picture of each side by a 1 x 1 convolution and tanh, which the discriminator takes in,
by a 1 x 1 convolution, beside what it made of the larger sides (the paper's phi is "simple", a concatenation).

The pictures of all sides travel from one network to the other as one tensor, laid out as a mipmap (Williams 1983): the
largest, and to the right of it the others, one below the other. A picture that comes alone, a real one or another
generator's, is halved by averages, as the authors' reals are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.networks import base
from trainer.networks.base import DiscriminatorOutput, Head, Latent, Weights, minibatch_std, pack_images, weight_matrix
from trainer.networks.network_settings import NetworkSettings

SLOPE = 0.2
HEAD = "head.real", "head.embed", "head.classify"


def problem(settings: NetworkSettings) -> str | None:
    """Return what MSG-GAN cannot do with these settings, or None."""
    return settings.shape_problem("msg-gan", (8, 16, 32, 64, 128, 256, 512, 1024))


def widths(settings: NetworkSettings, width: int) -> list[int]:
    """Return the channels of the feature maps from the smallest side to the pictures'; `width` is that of the last."""
    return [min(settings.max_channels, width << k) for k in range(settings.doublings, -1, -1)]


def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    """Draw weights evenly within 1 / sqrt(inputs), as PyTorch does for the authors; biases are zero."""
    if name.endswith("bias"):
        return 0.0
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return rng.uniform(-bound, bound, shape)


def lay_out(pictures: Sequence[Float[Tensor, "n c _ _"]]) -> Float[Tensor, "n c h w*3/2"]:
    """Return pictures of sides that halve, the largest first, as one tensor; what is between them is 0."""
    largest, *others = pictures
    height, width = largest.shape[2:]
    column = torch.cat([F.pad(one, (0, width // 2 - one.shape[3])) for one in others], 2)
    return torch.cat([largest, F.pad(column, (0, 0, 0, height - column.shape[2]))], 3)


def take_apart(x: Float[Tensor, "n c h _"], settings: NetworkSettings) -> list[Float[Tensor, "n c _ _"]]:
    """Return the pictures of all sides, the largest first: of a layout, or of a picture alone, by averages."""
    height, width = settings.shape
    found = [x[..., :width]]
    top = 0
    for _ in range(settings.doublings):
        height, width = height // 2, width // 2
        if x.shape[3] == settings.shape[1]:
            found.append(F.avg_pool2d(found[-1], 2))
        else:
            found.append(x[:, :, top : top + height, settings.shape[1] : settings.shape[1] + width])
            top += height
    return found


class GeneratorBlock(nn.Module):
    """Two convolutions with LeakyReLU; all blocks but the first double the side before, to the nearest place."""

    def __init__(self, conv1: nn.Module, after: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv1, nn.Conv2d(after, after, 3, padding=1)
        self.to_rgb = nn.Conv2d(after, settings.channels, 1)

    def forward(self, x: Float[Tensor, "n a h w"]) -> Float[Tensor, "n b y x"]:
        """Return the next feature maps."""
        x = F.leaky_relu(self.conv1(x), SLOPE)
        return F.leaky_relu(self.conv2(x), SLOPE)


def picture(block: Any, x: Float[Tensor, "n b y x"]) -> Float[Tensor, "n c y x"]:
    """Return the picture that a block's maps hold, in [-1, 1]."""
    out: Tensor = block.to_rgb(x).tanh()
    return out


class Generator(base.Generator):
    """Noise to pictures; while it trains, of all sides. Labels are embedded beside the noise."""

    makes_all_sides = has_blocks = True
    problem = staticmethod(problem)
    initial_value = staticmethod(initial_value)
    without_spectral_norm = (*base.Generator.without_spectral_norm, "to_rgb", "embed")

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        channels = widths(settings, settings.g_channels)
        condition, z_dim = settings.g_condition, settings.z_dim
        self.embed = nn.Linear(condition, z_dim, bias=False) if condition else None
        first = nn.ConvTranspose2d(2 * z_dim if condition else z_dim, channels[0], settings.base)
        blocks = [GeneratorBlock(first, channels[0], settings)]
        for before, after in pairwise(channels):
            blocks.append(GeneratorBlock(nn.Conv2d(before, after, 3, padding=1), after, settings))
        self.blocks = nn.ModuleList(blocks)

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the weights of the layer that takes z."""
        first: Any = self.blocks[0]
        return [weight_matrix(first.conv1)[:, : self.settings.z_dim]]

    def forward(self, latent: Latent) -> Float[Tensor, "n c h w*3/2"]:
        """Generate pictures of all sides in [-1, 1], laid out as one tensor."""
        maps = self.maps(self.latent_code(latent), latent)
        pictures = [picture(block, x) for block, x in zip(self.blocks, maps, strict=True)]
        return lay_out(pictures[::-1])

    def synthesize(self, code: Float[Tensor, "n z"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate pictures of the largest side."""
        return picture(self.blocks[-1], self.maps(code, latent)[-1])

    def maps(self, code: Float[Tensor, "n z"], latent: Latent) -> list[Float[Tensor, "n _ _ _"]]:
        """Return the feature maps of all sides, the smallest first."""
        if self.embed is not None:
            code = torch.cat([code, self.embed(self.labels(latent.label).to(code.dtype))], 1)
        found = [self.run_block(self.blocks[0], code[:, :, None, None])]
        for block in self.blocks[1:]:
            found.append(self.run_block(block, F.interpolate(found[-1], scale_factor=2)))
        return found


class DiscriminatorBlock(nn.Module):
    """Takes in the pictures of a side beside what was made of the larger ones; two convolutions, then averages."""

    def __init__(self, taken: int, before: int, after: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.from_rgb = nn.Conv2d(settings.d_inputs, taken, 1)
        self.conv1 = nn.Conv2d(before, before, 3, padding=1)
        self.conv2 = nn.Conv2d(before, after, 3, padding=1)

    def forward(self, picture: Float[Tensor, "n c h w"], *larger: Float[Tensor, "n a h w"]) -> Tensor:
        """Return maps of half the side."""
        x = torch.cat([self.from_rgb(picture), *larger], 1)
        x = F.leaky_relu(self.conv1(x), SLOPE)
        return F.avg_pool2d(F.leaky_relu(self.conv2(x), SLOPE), 2)


class Discriminator(base.Discriminator):
    """Pictures of all sides to logits. At each side half of the channels are of its picture, half of larger sides."""

    takes_all_sides = has_blocks = True
    problem = staticmethod(problem)
    initial_value = staticmethod(initial_value)
    without_spectral_norm = (*base.Discriminator.without_spectral_norm, "from_rgb", *HEAD)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        smallest, *others = widths(settings, settings.d_channels)
        blocks, larger = [], 0  # channels that come from the larger sides
        for width, below in zip(others[::-1], [*others[-2::-1], smallest], strict=True):
            blocks.append(DiscriminatorBlock(width - larger, width, below // 2, settings))
            larger = below // 2
        self.blocks = nn.ModuleList(blocks)
        self.from_rgb = nn.Conv2d(settings.d_inputs, smallest - larger, 1)
        self.conv1 = nn.Conv2d(smallest + bool(settings.mbstd_group), smallest, 3, padding=1)
        self.conv2 = nn.Conv2d(smallest, smallest, settings.base)
        self.head = Head(smallest, settings)

    def forward(self, x: Float[Tensor, "n c h _"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge pictures, alone or of all sides: high logits are real ones."""
        *sides, smallest = (pack_images(one, self.settings.pack) for one in take_apart(x, self.settings))
        larger: list[Tensor] = []
        for block, picture in zip(self.blocks, sides, strict=True):
            larger = [self.run_block(block, picture, *larger)]
        maps = minibatch_std(torch.cat([self.from_rgb(smallest), *larger], 1), self.settings.mbstd_group)
        maps = F.leaky_relu(self.conv1(maps), SLOPE)
        out: DiscriminatorOutput = self.head(F.leaky_relu(self.conv2(maps), SLOPE).flatten(1), label)
        return out
