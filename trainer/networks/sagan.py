"""SAGAN (Zhang et al. 2019, arXiv:1805.08318, §4), for 32 to 256 pixels: SNGAN's networks with self-attention.

The paper's have size 128, z_dim 128, g_channels 64, d_channels 64, max_channels 1024, g_spectral_norm, d_spectral_norm,
g_conditional and d_head projection. With network.attention 0, both attend at maps of height 32 (the best in the paper's
table 1), for 32 pixels at 16.
"""

from __future__ import annotations

from trainer.networks import attention, residual
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.residual import ClassGenerator, ResidualDiscriminator, widths


def attention_height(settings: NetworkSettings) -> int:
    """Return the height of the maps that attend."""
    return settings.attention or (16 if settings.nominal == 32 else 32)


def problem(settings: NetworkSettings) -> str | None:
    """Return what SAGAN cannot do with these settings, or None."""
    return residual.problem(settings) or attention.problem(attention_height(settings), settings)


class Generator(ClassGenerator):
    """SNGAN's generator, with self-attention at one height."""

    problem = staticmethod(problem)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings, attention_height(settings))


class Discriminator(ResidualDiscriminator):
    """SNGAN's discriminator, with blocks that widen at once, as in the authors' code, and self-attention."""

    problem = staticmethod(problem)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings, widths(settings.d_channels, settings), True, attention_height(settings))
