"""SNGAN's residual networks (Miyato et al. 2018, arXiv:1802.05957, appendix B.4), for 32 to 256 pixels.

The paper's networks, with z_dim 128 and d_spectral_norm:

- CIFAR-10 (table 4): size 32, g_channels 256, d_channels 128;
- ImageNet (table 6): size 128, g_channels 64, d_channels 64, max_channels 1024. The authors' code has these widths at
  64 pixels too, but there the last block of its discriminator still halves, to 2 x 2 places.

With g_conditional and d_head projection these are the networks of Miyato and Koyama (2018). They have no attention,
whatever network.attention says.
"""

from __future__ import annotations

from trainer.networks.network_settings import NetworkSettings
from trainer.networks.residual import ClassGenerator, ResidualDiscriminator, widths


class Generator(ClassGenerator):
    """Up-blocks from 4 x 4 places, with BatchNorm for each class if it is told the class."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)


class Discriminator(ResidualDiscriminator):
    """Down-blocks without normalisation layers, made for spectral normalisation; sum over places."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings, widths(settings.d_channels, settings))
