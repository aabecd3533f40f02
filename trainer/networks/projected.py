"""Projected GAN's discriminator (Sauer et al. 2021, arXiv:2111.01007): four small ones on mixed, frozen features.

A frozen network makes four maps of a picture. Random 1 x 1 convolutions mix their channels, and from the smallest map
to the largest each is doubled and added to the next one, with more of them (sections 3.2.1 and 3.2.2). Each mixed map
has a discriminator of its own with spectral normalisation, and every place of its last map gives a logit; the loss is
the mean over all logits. The authors' feature network is EfficientNet-Lite0, from --network.features-file; without a
file it is a random VGG, which knows nothing of photographs.

Pictures are resized to network.features_side; grey is shown as three equal channels. The class is a projection in each
of the four discriminators, as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.core.randomness import philox
from trainer.networks import base
from trainer.networks.base import DiscriminatorOutput, Weights
from trainer.networks.batch_norm import BatchNorm2d
from trainer.networks.frozen_features import feature_network, fill_features, freeze, resize
from trainer.networks.network_settings import NetworkSettings

MIXED = (1, 2, 4, 8)
"""Channels of the four maps after the mixing of channels, in widths."""
FUSED = (1, 1, 2, 4)
"""After the mixing of scales."""
LAST = 8
"""Of the last maps of the discriminators."""
CLASS_MAPS, CLASS_FEATURES = 64, 128
LEAST_SIDE, UNIT = 128, 32


class SmallDiscriminator(nn.Module):
    """Halves a map as often as its level allows, and makes a logit of each place of the result.

    Args:
        level: 0 for the largest map, which is halved four times.
        settings: width, and what it does with labels.
    """

    def __init__(self, level: int, settings: NetworkSettings) -> None:
        super().__init__()
        width = settings.d_channels
        channels = [FUSED[level] * width, *(width << k for k in range(level, LAST.bit_length()))]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(channels))
        self.norms = nn.ModuleList(BatchNorm2d(b) for b in channels[1:])
        self.conditional = settings.d_head == "projection"
        self.real = nn.Conv2d(channels[-1], CLASS_MAPS if self.conditional else 1, 4, bias=False)
        if self.conditional:
            self.embed = nn.Linear(settings.labels.dim, CLASS_FEATURES, bias=False)
            self.project = nn.Linear(CLASS_FEATURES, CLASS_MAPS)

    def forward(self, x: Float[Tensor, "n c h w"], label: Float[Tensor, "n k"] | None) -> Float[Tensor, "n places"]:
        """Judge a map."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        logits: Tensor = self.real(x)
        if label is not None:
            classes = F.leaky_relu(self.project(self.embed(label.to(x.dtype))), 0.2)
            logits = (logits * classes[:, :, None, None]).sum(1) / math.sqrt(CLASS_MAPS)
        return logits.flatten(1)


class Discriminator(base.Discriminator):
    """Judges pictures by frozen features; it has several logits of a picture."""

    without_spectral_norm = ("embed", "project")
    several_logits = True

    @staticmethod
    def problem(settings: NetworkSettings) -> str | None:
        """Return what it cannot do with these settings, or None."""
        if not settings.size or settings.pack > 1 or settings.channels == 4:
            return "the discriminator projected judges single pictures, grey or RGB: no points, packs or transparency"
        if settings.d_head == "classifier":
            return "the discriminator projected does not guess classes: network.d_head must be plain or projection"
        if settings.features_side % UNIT:
            return f"network.features_side must be a multiple of {UNIT}, but is {settings.features_side}"
        return None

    @staticmethod
    def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
        """Draw weights from U(-b, b), with b = 1 / sqrt(inputs), as torch does; embeddings from N(0, 1)."""
        if len(shape) == 1:
            return 0.0 if name.endswith("bias") else 1.0
        if name.endswith("embed.weight"):
            return rng.standard_normal(shape)
        return uniform_weights(shape, rng, math.prod(shape[1:]))

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        width = settings.d_channels
        self.features = feature_network(settings)
        mixed = [factor * width for factor in MIXED]
        self.mix = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(self.features.channels, mixed, strict=True))
        self.fuse = nn.ModuleList(nn.Conv2d(a, b * width, 1) for a, b in zip(mixed, FUSED, strict=True))
        freeze(self.mix)
        freeze(self.fuse)
        self.judges = nn.ModuleList(SmallDiscriminator(level, settings) for level in range(len(MIXED)))

    def fill_frozen(self, seed: int) -> None:
        """Fill in the weights of the feature network, and draw those of the random convolutions."""
        fill_features(self.features, self.settings)
        for part, layers in (("mix", self.mix), ("fuse", self.fuse)):
            for k, layer in enumerate(layers):
                assert isinstance(layer, nn.Conv2d)
                for name, buffer in layer.named_buffers():
                    drawn = uniform_weights(buffer.shape, philox(seed, "frozen", part, k, name), layer.in_channels)
                    buffer.copy_(torch.from_numpy(drawn))

    def train(self, mode: bool = True) -> Discriminator:
        """Leave the feature network evaluating."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge pictures: high logits are real ones; (n, logits)."""
        side = self.settings.features_side
        maps = self.features(resize(x.expand(-1, 3, -1, -1), side, side, corners=False))
        told = self.labels(label) if self.settings.d_head == "projection" else None
        fused: list[Tensor] = []
        for level in reversed(range(len(MIXED))):
            mixed = self.mix[level](maps[level])
            mixed = mixed + fused[-1] if fused else mixed
            height, width = mixed.shape[2:]
            fused.append(self.fuse[level](resize(mixed, 2 * height, 2 * width, corners=True)))
        judged = [judge(x, told) for judge, x in zip(self.judges, reversed(fused), strict=True)]
        return DiscriminatorOutput(torch.cat(judged, 1))


def uniform_weights(shape: Sequence[int], rng: np.random.Generator, inputs: int) -> npt.NDArray[np.float64]:
    """Draw weights of a layer with so many inputs."""
    bound = 1 / math.sqrt(inputs)
    return rng.uniform(-bound, bound, shape)
