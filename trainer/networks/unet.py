"""The U-Net discriminator (Schönfeld et al. 2020, arXiv:2002.12655), for 32 to 256 pixels.

An encoder, BigGAN's discriminator without its last block and without attention, judges the whole picture; a decoder,
which sees the encoder's maps of each side, judges each pixel. At 128 and 256 pixels the networks are those of the
authors' scripts; at 32 and 64 the encoder has BigGAN's widths there, and ends at 4 x 4 places. D's and G's losses are
means of that of the pictures' logits and that of the pixels' (losses/discriminator_pass.py).
"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float, Num
from torch import Tensor, cat, nn
from torch.nn import functional as F

from trainer.networks import base, biggan, residual
from trainer.networks.base import DiscriminatorOutput, Head, minibatch_std, pack_images
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.residual import DownBlock


class UpBlock(nn.Module):
    """ReLU, twice the height, convolution, ReLU, convolution; and a shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Float[Tensor, "n a h w"]) -> Float[Tensor, "n b 2*h 2*w"]:
        """Double height and width."""
        h = self.conv2(self.conv1(F.interpolate(x.relu(), scale_factor=2)).relu())
        # Enlarging and a 1 x 1 convolution commute: convolved first, the shortcut costs a quarter.
        out: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2)
        return out


class Discriminator(base.Discriminator):
    """Pictures to one logit each, and to one for each of their pixels; both are told the labels by projection."""

    has_blocks = True
    judges_pixels = True
    problem = staticmethod(residual.problem)
    initial_value = staticmethod(biggan.initial_value)
    without_spectral_norm = (*base.Discriminator.without_spectral_norm, "pixels")

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        widths = [settings.d_channels * width for width in biggan.D_WIDTHS[settings.nominal][:-1]]
        self.encoder = nn.ModuleList(
            DownBlock(before, after, after, down=True, first=k == 0, layer_norm=False)
            for k, (before, after) in enumerate(pairwise([settings.d_inputs, *widths]))
        )
        self.head = Head(widths[-1] + bool(settings.mbstd_group), settings)
        # Each block but the first sees what the encoder made of its side.
        outputs = [*widths[-2::-1], widths[0]]
        inputs = [widths[-1], *(2 * width for width in outputs[:-1])]
        self.decoder = nn.ModuleList(UpBlock(before, after) for before, after in zip(inputs, outputs, strict=True))
        self.pixels = nn.Conv2d(widths[0], 1, 1)
        if settings.d_head == "projection":
            self.embed_pixels = nn.Linear(self.labels.dim, widths[0], bias=False)

    @property
    def judges_each_alone(self) -> bool:
        """Tell whether it does without the deviation over a group of pictures: nothing else here mixes them."""
        return self.settings.mbstd_group == 0

    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge pictures and their pixels: high logits are real ones."""
        x = pack_images(x, self.settings.pack)
        seen = []
        for block in self.encoder:
            x = self.run_block(block, x)
            seen.append(x)
        # The sum over places, as in BigGAN.
        pooled = minibatch_std(x.relu(), self.settings.mbstd_group).sum((2, 3))
        whole: DiscriminatorOutput = self.head(pooled, label)
        for k, block in enumerate(self.decoder):
            x = self.run_block(block, x if k == 0 else cat([x, seen[-1 - k]], 1))
        pixels = self.pixels(x)[:, 0]
        if self.settings.d_head == "projection":
            pixels = pixels + (self.embed_pixels(self.labels(label).to(x.dtype))[:, :, None, None] * x).sum(1)
        return whole._replace(pixels=pixels)
