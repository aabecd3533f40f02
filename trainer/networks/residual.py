"""Residual networks of pre-activation blocks (He et al. 2016): what WGAN-GP, SNGAN, SAGAN and BigGAN have in common.

A generator starts from 4 x 4 places (NetworkSettings.base where pictures are not square) and doubles the sides in
each block; a discriminator halves them, ends with one block at 4 x 4, and pools. At 32 x 32 the networks are those that
Gulrajani et al. (2017) made for CIFAR-10, which SNGAN's and BigGAN's authors kept: of constant width, with a
discriminator that ends with two blocks at 8 x 8.

Nearest-neighbour upsampling and average pooling commute with a 1 x 1 convolution, so that each shortcut is convolved on
its smaller side, whatever order the papers' code has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.networks import base
from trainer.networks.attention import SelfAttention
from trainer.networks.base import DiscriminatorOutput, Head, Latent, Weights, minibatch_std, pack_images
from trainer.networks.batch_norm import BatchNorm2d, ConditionalBatchNorm2d
from trainer.networks.layer_norm import LayerNorm
from trainer.networks.network_settings import NetworkSettings


def problem(settings: NetworkSettings) -> str | None:
    """Return what residual networks cannot do with these settings, or None."""
    return settings.shape_problem("residual networks", (32, 64, 128, 256))


def widths(base_width: int, settings: NetworkSettings) -> list[int]:
    """Return the channels of each resolution, from the picture's side to the 4 x 4 side.

    They double from one to the next, as far as max_channels; at 32 x 32 they stay the same.
    """
    depth = settings.nominal.bit_length() - 2
    factors = [1] * depth if settings.nominal == 32 else [2**i for i in range(depth)]
    return [min(base_width * factor, settings.max_channels) for factor in factors]


def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    """Draw weights as Glorot and Bengio (2010) do, those of a block's 3 x 3 convolutions sqrt(2) times as large.

    This is the initialisation of WGAN-GP's and SNGAN's code. Gains start at 1 and shifts at 0 for every class, and
    attention starts as the identity.
    """
    if name.endswith(("bias", "gain.weight", "shift.weight", "gamma")):
        return 0.0
    if len(shape) == 1:
        return 1.0
    fans = (shape[0] + shape[1]) * math.prod(shape[2:])
    # U(-b, b) has the variance b² / 3, which Glorot and Bengio want to be 2 / (fan in + fan out).
    bound = math.sqrt((12 if ".conv" in name else 6) / fans)
    return rng.uniform(-bound, bound, shape)


class UpBlock(nn.Module):
    """BatchNorm, ReLU, twice the height, convolution, BatchNorm, ReLU, convolution; and a shortcut."""

    def __init__(self, before: int, after: int, condition_dim: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm2d(before, condition_dim)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = ConditionalBatchNorm2d(after, condition_dim)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(
        self, x: Float[Tensor, "n a h w"], condition: Float[Tensor, "n k"] | None
    ) -> Float[Tensor, "n b 2*h 2*w"]:
        """Double height and width; the condition modulates BatchNorm."""
        h = self.conv1(F.interpolate(self.norm1(x, condition).relu(), scale_factor=2))
        h = self.conv2(self.norm2(h, condition).relu())
        # Enlarging and a 1 x 1 convolution commute: convolved first, the shortcut costs a quarter.
        out: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2)
        return out


def activation(channels: int, layer_norm: bool) -> nn.Module:
    """Return a ReLU, if wanted after layer normalisation: over channels and places, gain and bias for each channel."""
    # Each picture has statistics of its own, as gradient penalties want it.
    return nn.Sequential(LayerNorm(channels), nn.ReLU()) if layer_norm else nn.ReLU()


class DownBlock(nn.Module):
    """ReLU, convolution, ReLU, convolution, half the height; and a shortcut, convolved where the shape changes.

    Args:
        before: channels that come in.
        after: channels that go out.
        hidden: channels between the convolutions.
        down: halve height and width.
        first: x is the picture itself, which is not rectified.
        layer_norm: normalise before each ReLU.
    """

    def __init__(self, before: int, after: int, hidden: int, down: bool, first: bool, layer_norm: bool) -> None:
        super().__init__()
        # A ReLU on the image itself would throw away all that is darker than grey.
        self.activation1 = nn.Identity() if first else activation(before, layer_norm)
        self.conv1 = nn.Conv2d(before, hidden, 3, padding=1)
        self.activation2 = activation(hidden, layer_norm)
        self.conv2 = nn.Conv2d(hidden, after, 3, padding=1)
        self.pool = nn.AvgPool2d(2) if down else nn.Identity()
        self.shortcut = nn.Conv2d(before, after, 1) if down or before != after else nn.Identity()

    def forward(self, x: Float[Tensor, "n a h w"]) -> Float[Tensor, "n b h2 w2"]:
        """Change the channels and halve height and width, or keep them."""
        h = self.conv2(self.activation2(self.conv1(self.activation1(x))))
        # Pooling and a 1 x 1 convolution commute: pooled first, the shortcut costs a quarter.
        out: Tensor = self.pool(h) + self.shortcut(self.pool(x))
        return out


class ResidualGenerator(base.Generator):
    """A linear layer to 4 x 4 places, blocks that double the height, BatchNorm, ReLU, convolution, tanh.

    Args:
        settings: of the network.
        channels: of each resolution, from 4 x 4 to the picture.
        first_dim: dimensions that the linear layer takes.
        condition_dim: dimensions of the condition of each block's BatchNorm; 0: none.
        attention: height of the maps that attend; 0: none.
    """

    has_blocks = True
    problem = staticmethod(problem)

    def __init__(
        self, settings: NetworkSettings, channels: Sequence[int], first_dim: int, condition_dim: int, attention: int
    ) -> None:
        super().__init__(settings)
        self.first = nn.Linear(first_dim, math.prod(settings.base) * channels[0])
        self.blocks = nn.ModuleList(UpBlock(a, b, condition_dim) for a, b in pairwise(channels))
        self.attentions = nn.ModuleList(
            SelfAttention(c) if 8 << i == attention else nn.Identity() for i, c in enumerate(channels[1:])
        )
        self.norm = BatchNorm2d(channels[-1])
        self.last = nn.Conv2d(channels[-1], settings.channels, 3, padding=1)

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the weights of the layer that takes z."""
        return [self.first.weight]

    def grow(self, first: Float[Tensor, "n f"], conditions: Sequence[Tensor | None]) -> Float[Tensor, "n c h w"]:
        """Generate pictures in [-1, 1] from the linear layer's input and a condition for each block."""
        x = self.first(first).unflatten(1, (-1, *self.settings.base))
        for block, attention, condition in zip(self.blocks, self.attentions, conditions, strict=True):
            x = attention(self.run_block(block, x, condition))
        out: Tensor = self.last(self.norm(x).relu()).tanh()
        return out


class ClassGenerator(ResidualGenerator):
    """A residual generator in which each class has its own gains and biases of BatchNorm (Miyato and Koyama 2018, §4).

    Not told the class, it has plain BatchNorm.
    """

    initial_value = staticmethod(initial_value)

    def __init__(self, settings: NetworkSettings, attention: int = 0) -> None:
        channels = widths(settings.g_channels, settings)[::-1]
        super().__init__(settings, channels, settings.z_dim, settings.g_condition, attention)

    def synthesize(self, code: Float[Tensor, "n z"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate pictures in [-1, 1]."""
        condition = self.labels(latent.label).to(code.dtype) if self.settings.g_condition else None
        return self.grow(code, [condition] * len(self.blocks))


class ResidualDiscriminator(base.Discriminator):
    """Blocks that halve the picture, one that does not, ReLU, and a sum over places that the head judges.

    Args:
        settings: of the network. Of pictures that are packed, the first block sees all channels; the deviation over a
            group of pictures is one more map for the last block.
        channels: that each block puts out.
        wide: each block widens in its first convolution (SAGAN, BigGAN), not in its second one (WGAN-GP, SNGAN).
        attention: height of the maps that attend; 0: none.
        layer_norm: normalise in all blocks but the first.
    """

    has_blocks = True
    problem = staticmethod(problem)
    initial_value = staticmethod(initial_value)

    def __init__(
        self,
        settings: NetworkSettings,
        channels: Sequence[int],
        wide: bool = False,
        attention: int = 0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(settings)
        # SNGAN's for CIFAR-10 ends at 8 x 8 places (table 4), all others at 4 x 4.
        halvings = 2 if settings.nominal == 32 else len(channels) - 1
        layers: list[nn.Module] = [DownBlock(settings.d_inputs, channels[0], channels[0], True, True, False)]
        for i, (before, after) in enumerate(pairwise(channels), 1):
            # Attention costs the square of the number of places: only one height can afford it.
            if settings.nominal >> i == attention and i <= halvings:
                layers.append(SelfAttention(before))
            # The last block sees one more map: the deviation over a group of images.
            seen = before + bool(settings.mbstd_group) if i == len(channels) - 1 else before
            layers.append(DownBlock(seen, after, after if wide else before, i < halvings, False, layer_norm))
        self.blocks = nn.Sequential(*layers[:-1])
        self.last = layers[-1]
        self.head = Head(channels[-1], settings)

    @property
    def judges_each_alone(self) -> bool:
        """Tell whether it does without the deviation over a group of pictures: nothing else here mixes them."""
        return self.settings.mbstd_group == 0

    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge pictures: high logits are real ones."""
        x = pack_images(x, self.settings.pack)
        for block in self.blocks:
            x = self.run_block(block, x)
        x = self.run_block(self.last, minibatch_std(x, self.settings.mbstd_group)).relu()
        out: DiscriminatorOutput = self.head(self.pool(x), label)
        return out

    def pool(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        """Sum over places (Miyato et al. 2018, appendix B.4)."""
        return x.sum((2, 3))
