"""BigGAN-deep (Brock et al. 2019, arXiv:1809.11096, appendix B, tables 7 to 9), for 32 to 256 pixels.

The paper's at 128 pixels has z_dim 128, g_channels 128, d_channels 128, g_spectral_norm, d_spectral_norm,
g_conditional and d_head projection. Widths are BigGAN's (biggan.py), at 32 and 64 pixels those of the first author's
BigGAN-PyTorch; all are multiples of the base width, whatever max_channels. With attention 0, both networks attend
where BigGAN does.

Blocks have a bottleneck of a quarter of the channels. Their shortcuts keep channels as they are: in G they drop some,
in D they append new ones. All of z, beside the class embedding, conditions every block.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.networks import attention, base, biggan, residual
from trainer.networks.attention import SelfAttention
from trainer.networks.base import DiscriminatorOutput, Head, Latent, minibatch_std, pack_images, weight_matrix
from trainer.networks.batch_norm import BatchNorm2d, ConditionalBatchNorm2d
from trainer.networks.network_settings import NetworkSettings

BLOCKS = 2
"""In a stage; one of them changes height and width."""
RATIO = 4
"""Channels of a block over those of its bottleneck."""


def problem(settings: NetworkSettings) -> str | None:
    """Return what BigGAN-deep cannot do with these settings, or None."""
    height = biggan.attention_height(settings)
    return residual.problem(settings) or attention.problem(height, settings)


class UpBlock(nn.Module):
    """Four times BatchNorm, ReLU and convolution, of which the middle ones are 3 x 3 and narrow; and a shortcut.

    Args:
        before, after: channels; no more go out than come in.
        condition_dim: dimensions of BatchNorm's condition.
        up: double height and width, before the 3 x 3 convolutions.
    """

    def __init__(self, before: int, after: int, condition_dim: int, up: bool) -> None:
        super().__init__()
        hidden = max(before // RATIO, 1)
        self.after, self.up = after, up
        self.norm1 = ConditionalBatchNorm2d(before, condition_dim)
        self.conv1 = nn.Conv2d(before, hidden, 1)
        self.norm2 = ConditionalBatchNorm2d(hidden, condition_dim)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.norm3 = ConditionalBatchNorm2d(hidden, condition_dim)
        self.conv3 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.norm4 = ConditionalBatchNorm2d(hidden, condition_dim)
        self.conv4 = nn.Conv2d(hidden, after, 1)

    def forward(self, x: Float[Tensor, "n a h w"], condition: Float[Tensor, "n k"]) -> Float[Tensor, "n b p q"]:
        """Compute the next feature maps."""
        h = self.norm2(self.conv1(self.norm1(x, condition).relu()), condition).relu()
        # The shortcut drops the last channels in place of mixing them.
        x = x[:, : self.after]
        if self.up:
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.norm3(self.conv2(h), condition).relu()
        h = self.norm4(self.conv3(h), condition).relu()
        out: Tensor = self.conv4(h) + x
        return out


class DownBlock(nn.Module):
    """Four times ReLU and convolution, of which the middle ones are 3 x 3 and narrow; and a shortcut.

    Args:
        before, after: channels; at least as many go out as come in.
        down: halve height and width, before the last convolution.
    """

    def __init__(self, before: int, after: int, down: bool) -> None:
        super().__init__()
        hidden = max(after // RATIO, 1)
        self.conv1 = nn.Conv2d(before, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv3 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv4 = nn.Conv2d(hidden, after, 1)
        self.pool = nn.AvgPool2d(2) if down else nn.Identity()
        # The shortcut keeps all channels, and makes those that are new.
        self.more = nn.Conv2d(before, after - before, 1) if after > before else None

    def forward(self, x: Float[Tensor, "n a h w"]) -> Float[Tensor, "n b p q"]:
        """Compute the next feature maps."""
        h = self.conv2(self.conv1(x.relu()).relu())
        h = self.conv4(self.pool(self.conv3(h.relu()).relu()))
        x = self.pool(x)
        out: Tensor = h + (x if self.more is None else torch.cat([x, self.more(x)], 1))
        return out


class Generator(base.Generator):
    """A linear layer from all of z and the class, stages of two blocks of which the second enlarges, RGB by tanh."""

    has_blocks = True
    problem = staticmethod(problem)
    initial_value = staticmethod(biggan.initial_value)
    without_spectral_norm = ()  # the authors normalise the classes' gains and biases too

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        channels = [settings.g_channels * width for width in reversed(biggan.G_WIDTHS[settings.nominal])]
        condition_dim = settings.z_dim + (biggan.SHARED_DIM if settings.g_condition else 0)
        if settings.g_condition:
            # Not a layer: spectral normalisation leaves it alone, as in BigGAN-PyTorch.
            self.embedding = nn.Parameter(torch.zeros(settings.g_condition, biggan.SHARED_DIM))
        self.first = nn.Linear(condition_dim, math.prod(settings.base) * channels[0])
        self.blocks = nn.ModuleList()
        self.attentions = nn.ModuleDict()  # by the number of the block that they follow
        for stage, (before, after) in enumerate(pairwise(channels)):
            self.blocks.extend(UpBlock(before, before, condition_dim, up=False) for _ in range(BLOCKS - 1))
            self.blocks.append(UpBlock(before, after, condition_dim, up=True))
            if 8 << stage == biggan.attention_height(settings):
                self.attentions[str(len(self.blocks) - 1)] = SelfAttention(after)
        self.norm = BatchNorm2d(channels[-1])
        self.last = nn.Conv2d(channels[-1], settings.channels, 3, padding=1)

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the weights of z in the linear layer and the blocks' gains and biases: all take all of z."""
        taking = [self.first, *(m for name, m in self.blocks.named_modules() if name.endswith((".gain", ".shift")))]
        # z stands behind the class embedding.
        return [torch.cat([weight_matrix(layer)[:, -self.settings.z_dim :] for layer in taking])]

    def synthesize(self, code: Float[Tensor, "n z"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate pictures in [-1, 1]."""
        if self.settings.g_condition:
            code = torch.cat([self.labels(latent.label).to(code.dtype) @ self.embedding, code], 1)
        x = self.first(code).unflatten(1, (-1, *self.settings.base))
        for k, block in enumerate(self.blocks):
            x = self.run_block(block, x, code)
            if str(k) in self.attentions:
                x = self.attentions[str(k)](x)
        picture: Tensor = self.last(self.norm(x).relu()).tanh()
        return picture


class Discriminator(base.Discriminator):
    """A convolution, stages of two blocks of which the first halves the sides, ReLU, and a sum over places."""

    has_blocks = True
    problem = staticmethod(problem)
    initial_value = staticmethod(biggan.initial_value)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        channels = [settings.d_channels * width for width in biggan.D_WIDTHS[settings.nominal]]
        # For 32 pixels it ends at 8 x 8 places, as BigGAN's does.
        halvings = 2 if settings.nominal == 32 else len(channels) - 1
        self.first = nn.Conv2d(settings.d_inputs, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        self.attentions = nn.ModuleDict()  # by the number of the block that they follow
        for stage, (before, after) in enumerate(pairwise(channels), 1):
            self.blocks.append(DownBlock(before, after, down=stage <= halvings))
            self.blocks.extend(DownBlock(after, after, down=False) for _ in range(BLOCKS - 1))
            if settings.nominal >> stage == biggan.attention_height(settings) and stage <= halvings:
                self.attentions[str(len(self.blocks) - 1)] = SelfAttention(after)
        self.head = Head(channels[-1] + bool(settings.mbstd_group), settings)

    @property
    def judges_each_alone(self) -> bool:
        """Tell whether it does without the deviation over a group of pictures: nothing else here mixes them."""
        return self.settings.mbstd_group == 0

    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge pictures: high logits are real ones."""
        x = self.first(pack_images(x, self.settings.pack))
        for k, block in enumerate(self.blocks):
            x = self.run_block(block, x)
            if str(k) in self.attentions:
                x = self.attentions[str(k)](x)
        x = minibatch_std(x.relu(), self.settings.mbstd_group)
        out: DiscriminatorOutput = self.head(x.sum((2, 3)), label)
        return out
