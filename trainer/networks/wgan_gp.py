"""WGAN-GP's residual networks (Gulrajani et al. 2017, arXiv:1704.00028), for 32 to 256 pixels.

Those at 32 pixels are the authors' for CIFAR-10 (z_dim 128, g_channels 128, d_channels 128), whose critic has no
normalisation. Their critic at 64 pixels has layer normalisation, and so has this one from 64 pixels up; but it keeps
the CIFAR critic's first block and mean pooling, where theirs has a convolution and a linear layer over all places.
Their generator at 64 pixels is this one with g_channels 64 and max_channels 512.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from trainer.networks.network_settings import NetworkSettings
from trainer.networks.residual import ClassGenerator, ResidualDiscriminator, widths


class Generator(ClassGenerator):
    """Up-blocks from 4 x 4 places, with BatchNorm for each class if it is told the class."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)


class Discriminator(ResidualDiscriminator):
    """Down-blocks in which no picture sees another one, as the gradient penalty of each demands; mean over places."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings, widths(settings.d_channels, settings), layer_norm=settings.nominal > 32)

    def pool(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        """Average over places."""
        return x.mean((2, 3))
