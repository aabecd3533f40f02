"""R3GAN (Huang et al. 2024, arXiv:2501.05441): configuration E, convolutions in residual blocks and no normalisation.

A stage at side s has width * size / s channels, and never more than max_channels. The authors' FFHQ-256 is a width of
96 with at most 768 channels, FFHQ-64 384 and 768, CIFAR-10 768 and 768, ImageNet-64 1536 and 1536. Their 3 x 3
convolutions are in groups of 16 channels, and of 32 on ImageNet; here stages wider than 768 have groups of 32.

Pictures are not squashed by tanh: they learn to lie about [-1, 1], and are clipped where they are saved.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.networks import base
from trainer.networks.base import DiscriminatorOutput, Latent, Weights, minibatch_std, pack_images
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.resample import Downsample, Upsample

BLOCKS = 2  # of each stage
EXPANSION = 2
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # of LeakyReLU (He et al. 2015, §2.2)


def widths(settings: NetworkSettings, width: int) -> list[int]:
    """Return the channels of each stage, from the side of 4 to the picture's."""
    sides = [2**k for k in range(2, settings.nominal.bit_length())]
    return [min(width * settings.nominal // side, settings.max_channels) for side in sides]


def group_channels(channels: int) -> int:
    """Return how many channels a group of a stage's 3 x 3 convolutions has."""
    return 16 if channels <= 768 else 32


def initial_value(stages: int, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights:
    """Draw weights by their fan-in (He et al. 2015), those of residual blocks as Fixup does (Zhang et al. 2019).

    Each block's last convolution begins at zero, its others are scaled by L^(-1/4) for L blocks in the network. The
    basis that the generator begins with is N(0, 1). Biases are zero.
    """
    if name.endswith(("bias", "contract.weight")):
        return 0.0
    drawn = rng.standard_normal(shape, dtype=np.float32)
    if name == "constant":
        return drawn
    gain = 1 / math.sqrt(math.prod(shape[1:]))
    if "expand" in name or "grouped" in name:
        # Fixup's L^(-1 / (2 m - 2)), with m = 3 layers in a block.
        gain *= GAIN * (stages * BLOCKS) ** -0.25
    return drawn * np.float32(gain)


def problem(settings: NetworkSettings, width: int, spectral_norm: bool) -> str | None:
    """Return what R3GAN cannot do with these settings, or None."""
    if settings.nominal < 8:
        return f"network.size must be a power of two from 8 for r3gan, but is {settings.size}"
    for channels in widths(settings, width):
        multiple = group_channels(channels) // EXPANSION
        if channels % multiple:
            return f"widths must be multiples of {multiple} for r3gan, but there is a stage of {channels} channels"
    if spectral_norm:
        return "spectral normalisation does not go with r3gan: some of its weights begin at zero"
    return None


class ResidualBlock(nn.Module):
    """x plus 1 x 1, grouped 3 x 3 and 1 x 1 convolutions of it, an inverted bottleneck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = EXPANSION * channels
        self.expand = nn.Conv2d(channels, wide, 1)
        self.grouped = nn.Conv2d(wide, wide, 3, padding=1, groups=wide // group_channels(channels))
        # Begins at zero: at first each block is the identity, and the network is as deep as it can learn to be.
        self.contract = nn.Conv2d(wide, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Compute the next feature maps."""
        y = F.leaky_relu(self.expand(x), SLOPE)
        y = F.leaky_relu(self.grouped(y), SLOPE)
        out: Tensor = x + self.contract(y)
        return out


def stage(channels: int) -> list[nn.Module]:
    """Build the blocks of a stage."""
    return [ResidualBlock(channels) for _ in range(BLOCKS)]


def change(inputs: int, outputs: int) -> list[nn.Module]:
    """Build what changes the number of channels, where it changes."""
    return [nn.Conv2d(inputs, outputs, 1, bias=False)] if inputs != outputs else []


class Weigh(nn.Module):
    """A depthwise convolution over all places, as a product and a sum: each channel learns where to look."""

    def __init__(self, channels: int, places: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, *places))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        """Sum each channel's places with its weights."""
        return (x * self.weight.squeeze(1)).sum((2, 3))


class Generator(base.Generator):
    """z scales the channels of a learned 4 x 4 map; stages of residual blocks at doubling sides make it a picture.

    The class is embedded beside z.
    """

    has_blocks = True

    @staticmethod
    def problem(settings: NetworkSettings) -> str | None:
        """Return what R3GAN's generator cannot do with these settings, or None."""
        return problem(settings, settings.g_channels, settings.g_spectral_norm)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        condition, z_dim = settings.g_condition, settings.z_dim
        channels = widths(settings, settings.g_channels)
        self.stages = len(channels)
        self.embed = nn.Linear(condition, z_dim, bias=False) if condition else None
        self.constant = nn.Parameter(torch.zeros(1, channels[0], *settings.base))
        self.modulate = nn.Linear(2 * z_dim if condition else z_dim, channels[0], bias=False)
        layers = stage(channels[0])
        for before, after in pairwise(channels):
            # A 1 x 1 convolution and the filter commute: at the smaller side it costs a quarter.
            layers += [*change(before, after), Upsample(), *stage(after)]
        self.layers = nn.Sequential(*layers)
        self.to_rgb = nn.Conv2d(channels[-1], settings.channels, 1, bias=False)

    def initial_value(  # type: ignore[override]  # not static: it is one of a network of so many stages
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Weights | None:
        """Draw a parameter's first value; it depends on how many stages there are."""
        return initial_value(self.stages, name, shape, rng)

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the weights of the layer that takes z."""
        return [self.modulate.weight[:, : self.settings.z_dim]]

    def synthesize(self, code: Float[Tensor, "n z"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate pictures, about [-1, 1]."""
        if self.embed is not None:
            code = torch.cat([code, self.embed(self.labels(latent.label).to(code.dtype))], 1)
        # z enters here only: there are no styles and no noise further up.
        x = self.constant * self.modulate(code)[:, :, None, None]
        for layer in self.layers:
            x = self.run_block(layer, x) if isinstance(layer, ResidualBlock) else layer(x)
        out: Tensor = self.to_rgb(x)
        return out


class Discriminator(base.Discriminator):
    """Pictures to logits: the generator's stages in reverse, and a learned 4 x 4 weighting of each channel.

    Told the class, the logit is a product with the class's embedding.
    """

    has_blocks = True

    @staticmethod
    def problem(settings: NetworkSettings) -> str | None:
        """Return what R3GAN's discriminator cannot do with these settings, or None."""
        return problem(settings, settings.d_channels, settings.d_spectral_norm)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        channels = widths(settings, settings.d_channels)[::-1]
        self.stages = len(channels)
        self.from_rgb = nn.Conv2d(settings.d_inputs, channels[0], 1, bias=False)
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [*stage(before), Downsample(), *change(before, after)]
        self.layers = nn.Sequential(*layers, *stage(channels[-1]))
        last = channels[-1] + bool(settings.mbstd_group)
        self.weigh = Weigh(last, settings.base)
        if settings.d_head == "projection":
            self.embed = nn.Linear(self.labels.dim, channels[-1], bias=False)
        elif settings.d_head == "classifier":
            self.classify = nn.Linear(last, self.labels.guessed)
        self.real = nn.Linear(last, channels[-1] if settings.d_head == "projection" else 1, bias=False)

    def initial_value(  # type: ignore[override]  # not static: it is one of a network of so many stages
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Weights | None:
        """Draw a parameter's first value; it depends on how many stages there are."""
        drawn = initial_value(self.stages, name, shape, rng)
        # The logit is a sum of so many products: it begins with the same variance for any width.
        return drawn / math.sqrt(shape[0]) if name == "embed.weight" else drawn

    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge pictures: high logits are real ones."""
        x = self.from_rgb(pack_images(x, self.settings.pack))
        for layer in self.layers:
            x = self.run_block(layer, x) if isinstance(layer, ResidualBlock) else layer(x)
        x = self.weigh(minibatch_std(x, self.settings.mbstd_group))
        real = self.real(x)
        if self.settings.d_head == "projection":
            return DiscriminatorOutput((real * self.embed(self.labels(label).to(x.dtype))).sum(1), features=x)
        classes = self.classify(x) if self.settings.d_head == "classifier" else None
        return DiscriminatorOutput(real.flatten(), classes, features=x)
