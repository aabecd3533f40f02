"""FastGAN (Liu et al. 2021, arXiv:2101.04775), for 32 to 256 pixels.

Widths are the authors' for 256 x 256 with g_channels 32, d_channels 16 and max_channels 1024. It departs from their
code in three ways. Pictures have one size only; theirs are judged a second time at 128 x 128. A pack's logit is the
mean over its map of logits, on which the hinge loss acts; theirs acts on each place. The part that is reconstructed
is not drawn: the i-th pack of a micro-batch rebuilds its quadrant i mod 4. Spectral normalisation of all layers, and no
tanh in the end, which they have, are settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.core.randomness import normal
from trainer.networks import base
from trainer.networks.base import DiscriminatorOutput, Head, Latent, Weights, minibatch_std, pack_images, weight_matrix
from trainer.networks.batch_norm import BatchNorm2d, ConditionalBatchNorm2d
from trainer.networks.network_settings import NetworkSettings

WIDTHS = {4: 32, 8: 16, 16: 8, 32: 4, 64: 4, 128: 2, 256: 1}
"""Channels of the generator at each side, in units of those at 256 (the authors' nfc_multi)."""
NOISY = (8, 32, 128)
"""Sides at which the generator has two convolutions with noise, and not one without."""
G_SKIP, D_SKIP = 16, 8
"""How many times smaller, or larger, the feature map is that excites another one."""


def sides(settings: NetworkSettings) -> list[int]:
    """Return the sides of the generator's feature maps, from 4 to the picture's."""
    return [2**k for k in range(2, settings.nominal.bit_length())]


def widths(side: int, channels: int, limit: int) -> dict[int, int]:
    """Return the channels at each side up to `side`, which has `channels`."""
    return {s: min(channels * width // WIDTHS[side], limit) for s, width in WIDTHS.items() if s <= side}


def problem(settings: NetworkSettings) -> str | None:
    """Return what FastGAN cannot do with these settings, or None."""
    return settings.shape_problem("fastgan", (32, 64, 128, 256))


def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    """Draw weights from N(0, 0.02), BatchNorm's gains from N(1, 0.02); biases and strengths of noise are zero."""
    if name.endswith(("bias", "strength")):
        return 0.0
    return rng.normal(1.0 if len(shape) == 1 else 0.0, 0.02, shape)


class Gated(nn.Module):
    """A convolution, noise where there is some, BatchNorm and a gated linear unit."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, condition_dim: int = 0, noisy: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.strength = nn.Parameter(torch.zeros(())) if noisy else None
        self.norm = ConditionalBatchNorm2d(conv.out_channels, condition_dim)

    def forward(
        self, x: Tensor, condition: Tensor | None = None, noise: Float[Tensor, "n 1 h w"] | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Compute the next feature maps."""
        x = self.conv(x)
        if self.strength is not None and noise is not None:
            # The strength is learnt, and begins at zero: no noise until it helps.
            x = x + (self.strength * noise).to(x.dtype)
        return F.glu(self.norm(x, condition), 1)


def gated(inputs: int, outputs: int, condition_dim: int = 0, noisy: bool = False) -> Gated:
    """Build a gated 3 x 3 convolution."""
    # Twice the channels: a gated linear unit multiplies one half by the sigmoid of the other.
    return Gated(nn.Conv2d(inputs, 2 * outputs, 3, padding=1, bias=False), condition_dim, noisy)


class UpBlock(nn.ModuleList):
    """Twice the side: an enlargement, and gated convolutions."""

    def forward(self, x: Tensor, condition: Tensor | None, noise: Sequence[Tensor | None]) -> Float[Tensor, "n c h w"]:
        """Compute the next feature maps; `noise` is of each convolution."""
        x = F.interpolate(x, scale_factor=2)
        for layer, field in zip(self, noise, strict=True):
            x = layer(x, condition, field)
        return x


class Excitation(nn.Module):
    """Skip-layer excitation: channels of a large feature map are weighted by a small one (§3.1, eq. 1)."""

    def __init__(self, small: int, large: int, base: tuple[int, int]) -> None:
        super().__init__()
        self.base = base
        self.squeeze = nn.Conv2d(small, large, base, bias=False)
        self.excite = nn.Conv2d(large, large, 1, bias=False)

    def forward(self, small: Float[Tensor, "n a s s"], large: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Weight the channels of `large`."""
        # To the base's places, of which a convolution of that size makes one.
        pooled = F.avg_pool2d(small, small.shape[-1] // self.base[1])
        weights: Tensor = self.excite(F.silu(self.squeeze(pooled))).sigmoid()
        return large * weights


class Generator(base.Generator):
    """Noise to pictures: nearest-neighbour enlargements, gated convolutions and skip-layer excitation (fig. 3).

    Told labels, its BatchNorm is conditional.
    """

    has_blocks = True
    problem = staticmethod(problem)
    initial_value = staticmethod(initial_value)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        condition = settings.g_condition
        width = widths(settings.nominal, settings.g_channels, settings.max_channels)
        self.first = Gated(nn.ConvTranspose2d(settings.z_dim, 2 * width[4], settings.base, bias=False), condition)
        self.blocks, self.excitations = nn.ModuleDict(), nn.ModuleDict()
        for before, side in pairwise(sides(settings)):
            block = [gated(width[before], width[side], condition, noisy=side in NOISY)]
            block += [gated(width[side], width[side], condition, noisy=True)] if side in NOISY else []
            self.blocks[str(side)] = UpBlock(block)
            if side // G_SKIP >= 4:  # there are no smaller maps
                self.excitations[str(side)] = Excitation(width[side // G_SKIP], width[side], settings.base)
        self.last = nn.Conv2d(width[settings.nominal], settings.channels, 3, padding=1, bias=False)

    @staticmethod
    def extra(settings: NetworkSettings, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """Draw n pictures' noise maps: noise_{side}_{k}, (n, 1, h, w), for the k-th convolution of a side."""
        noisy = [side for side in NOISY if side <= settings.nominal]
        return {f"noise_{side}_{k}": normal(rng, n, 1, *settings.map_shape(side)) for side in noisy for k in range(2)}

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the weights of the layer that takes z."""
        return [weight_matrix(self.first.conv)]

    def synthesize(self, code: Float[Tensor, "n z"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate pictures in [-1, 1]; without g_tanh, about there."""
        condition = self.labels(latent.label).to(code.dtype) if self.settings.g_condition else None
        maps = {4: self.first(code[:, :, None, None], condition)}
        for before, side in pairwise(sides(self.settings)):
            noise = [latent.extra[f"noise_{side}_{k}"] for k in range(2)] if side in NOISY else [None]
            x = self.run_block(self.blocks[str(side)], maps[before], condition, noise)
            maps[side] = self.excitations[str(side)](maps[side // G_SKIP], x) if str(side) in self.excitations else x
        out: Tensor = self.last(maps[self.settings.nominal])
        return out.tanh() if self.settings.g_tanh else out


def convolution(inputs: int, outputs: int, kernel: int, stride: int, batch_norm: bool) -> nn.Sequential:
    """Build a convolution with BatchNorm, or a bias in its place, and LeakyReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=not batch_norm)
    return nn.Sequential(conv, BatchNorm2d(outputs) if batch_norm else nn.Identity(), nn.LeakyReLU(0.2))


class DownBlock(nn.Module):
    """Half the side: the mean of two convolutions and of a pooled 1 x 1 one."""

    def __init__(self, inputs: int, outputs: int, batch_norm: bool) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            convolution(inputs, outputs, 4, 2, batch_norm), convolution(outputs, outputs, 3, 1, batch_norm)
        )
        self.direct = nn.Sequential(nn.AvgPool2d(2), convolution(inputs, outputs, 1, 1, batch_norm))

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h/2 w/2"]:
        """Compute the next feature maps."""
        out: Tensor = (self.deep(x) + self.direct(x)) / 2  # the mean keeps the scale
        return out


class Decoder(nn.Module):
    """An 8 x 8 feature map to a picture of half the side, by gated convolutions (§3.2)."""

    def __init__(self, inputs: int, settings: NetworkSettings) -> None:
        super().__init__()
        width = widths(settings.nominal, settings.d_channels, settings.max_channels)
        channels = [inputs] + [width[side] for side in sides(settings) if 8 < side < settings.nominal]
        self.layers = nn.ModuleList(gated(before, after) for before, after in pairwise(channels))
        self.last = nn.Conv2d(channels[-1], settings.d_inputs, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "n c 8 8"]) -> Float[Tensor, "n p h w"]:
        """Rebuild a pack of pictures."""
        for layer in self.layers:
            x = layer(F.interpolate(x, scale_factor=2))
        out: Tensor = self.last(x).tanh()
        return out


def quadrant(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h/2 w/2"]:
    """Return the i-th sample's quadrant i mod 4."""
    n, c, h, w = x.shape
    i = torch.arange(n, device=x.device)
    # Indices on both sides of a slice: their dimension, n, becomes the first one.
    return x.reshape(n, c, 2, h // 2, 2, w // 2)[i, :, i // 2 % 2, :, i % 2]


class Discriminator(base.Discriminator):
    """Pictures to logits, and back: it rebuilds them from its feature maps, so that these describe them (§3.2, fig. 4).

    The whole image is rebuilt at half its side from the 8 x 8 map, and a quadrant of it from that of the 16 x 16 map.
    The decoders keep their BatchNorm without `d_batch_norm`.
    """

    has_blocks = True
    reconstructs = True
    problem = staticmethod(problem)
    initial_value = staticmethod(initial_value)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        norm = settings.d_batch_norm
        self.sides = sides(settings)[:0:-1]  # from the picture's to 8
        width = {s: min(settings.d_channels * settings.nominal // s, settings.max_channels) for s in sides(settings)}
        self.first = nn.Sequential(
            nn.Conv2d(settings.d_inputs, width[settings.nominal], 3, padding=1, bias=False), nn.LeakyReLU(0.2)
        )
        self.blocks, self.excitations = nn.ModuleDict(), nn.ModuleDict()
        for before, side in pairwise(self.sides):
            self.blocks[str(side)] = DownBlock(width[before], width[side], norm)
            if side * D_SKIP in width:
                self.excitations[str(side)] = Excitation(width[side * D_SKIP], width[side], settings.base)
        self.mix = convolution(width[8] + bool(settings.mbstd_group), width[4], 1, 1, norm)
        self.head = Head(math.prod(settings.base) * width[4], settings, bias=False)
        self.decode_whole = Decoder(width[8], settings)
        self.decode_part = Decoder(width[16], settings)

    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge pictures: high logits are real ones."""
        x = pack_images(x, self.settings.pack)
        maps = {self.settings.nominal: self.first(x)}
        for before, side in pairwise(self.sides):
            y = self.run_block(self.blocks[str(side)], maps[before])
            maps[side] = self.excitations[str(side)](maps[side * D_SKIP], y) if str(side) in self.excitations else y
        features = self.mix(minibatch_std(maps[8], self.settings.mbstd_group))
        # A linear layer on this is the mean over the 5 x 5 logits of a 4 x 4 convolution with the same weights.
        height, width = self.settings.base
        windows = F.avg_pool2d(features, (height + 1, width + 1), stride=1)
        output: DiscriminatorOutput = self.head(windows.flatten(1), label)
        whole = self.run_block(self.decode_whole, maps[8])
        part = self.run_block(self.decode_part, quadrant(maps[16]))
        return output._replace(reconstructions=(whole, F.avg_pool2d(x, 2), part, quadrant(x)))
