"""BigGAN (Brock et al. 2019, arXiv:1809.11096, appendix B), for 32 to 256 pixels.

The paper's at 128 pixels (table 4) has z_dim 120, g_channels 96, d_channels 96, g_spectral_norm, d_spectral_norm,
g_conditional and d_head projection; at 256 pixels (table 5) z_dim is 140. The widths at 32 and 64 pixels are those of
the first author's BigGAN-PyTorch. They are multiples of the base width, whatever max_channels. With attention 0, both
networks attend at maps of height 64 as in the paper, for 64 pixels at 32 and for 32 pixels at 16 (BigGAN-PyTorch's own
script for CIFAR-10 has no attention, no hierarchical z, and weights from N(0, 0.02)).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.networks import attention, residual
from trainer.networks.base import Latent, Weights, weight_matrix
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.residual import ResidualDiscriminator, ResidualGenerator

D_WIDTHS = {32: (4, 4, 4, 4), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16), 256: (1, 2, 4, 8, 8, 16, 16)}
"""For each size, multiples of the base width from the picture's side to the 4 x 4 side."""
G_WIDTHS = D_WIDTHS | {64: (2, 4, 8, 16, 16)}
"""The generator's."""
SHARED_DIM = 128
"""Dimensions of the class embedding that all blocks share."""


def attention_height(settings: NetworkSettings) -> int:
    """Return the height of the maps that attend."""
    # The paper attends at 64 x 64 (table 4); smaller pictures do at the largest maps below their own side.
    return settings.attention or min(64, settings.nominal // 2)


def problem(settings: NetworkSettings) -> str | None:
    """Return what BigGAN cannot do with these settings, or None."""
    return residual.problem(settings) or attention.problem(attention_height(settings), settings)


def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    """Draw orthogonal weights (Saxe et al. 2014), each seen as a matrix (out, the rest); attention starts at 0."""
    if name.endswith(("bias", "gamma")):
        return 0.0
    if len(shape) == 1:
        return 1.0
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns)), dtype=np.float32))
    q *= np.sign(r.diagonal())  # so that all orthogonal matrices are as likely as one another
    # With fewer rows than columns it is the rows that are orthonormal.
    return (q if rows >= columns else q.T).reshape(shape)


class Generator(ResidualGenerator):
    """A generator whose every block sees a part of z of its own.

    z is cut in as many parts as there are blocks and one more: the first feeds the linear layer, each of the others
    conditions one block's BatchNorm, beside the class embedding if the generator is told the class.
    """

    initial_value = staticmethod(initial_value)
    without_spectral_norm = ()  # the authors normalise these layers too

    @staticmethod
    def problem(settings: NetworkSettings) -> str | None:
        """Return what BigGAN's generator cannot do with these settings, or None."""
        if found := problem(settings):
            return found
        parts = len(G_WIDTHS[settings.nominal])
        if settings.z_dim % parts:
            return (
                f"network.z_dim must be a multiple of {parts} for biggan at network.size {settings.size}, one part for "
                f"each block and one for the first layer, but is {settings.z_dim}"
            )
        return None

    def __init__(self, settings: NetworkSettings) -> None:
        channels = [settings.g_channels * width for width in reversed(G_WIDTHS[settings.nominal])]
        part = settings.z_dim // len(channels)
        condition_dim = part + SHARED_DIM if settings.g_condition else part
        super().__init__(settings, channels, part, condition_dim, attention_height(settings))
        if settings.g_condition:
            # Not a layer: spectral normalisation leaves it alone, as in BigGAN-PyTorch.
            self.embedding = nn.Parameter(torch.zeros(settings.g_condition, SHARED_DIM))

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the weights of the linear layer and of each block's gains and biases, each for its part of z."""
        part = self.first.weight.shape[1]
        found = [weight_matrix(self.first)]
        for block in self.blocks:
            layers = [layer for name, layer in block.named_modules() if name.endswith((".gain", ".shift"))]
            # The part of z stands behind the class embedding.
            found.append(torch.cat([weight_matrix(layer)[:, -part:] for layer in layers]))
        return [F.pad(weight, (k * part, (len(found) - 1 - k) * part)) for k, weight in enumerate(found)]

    def by_layer(self, code: Float[Tensor, "n z"]) -> Float[Tensor, "n layers part"]:
        """View z as its parts: that of the linear layer, and one for each block."""
        parts: Tensor = code.unflatten(1, (len(self.blocks) + 1, -1))
        return parts

    def synthesize(self, code: Float[Tensor, "n z"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate pictures in [-1, 1]."""
        # Skip-z: each block sees a part of z of its own, so it can shape its own level of detail.
        parts = self.by_layer(code)
        first, conditions = parts[:, 0], parts[:, 1:]
        if self.settings.g_condition:
            embedding = self.labels(latent.label).to(code.dtype) @ self.embedding
            conditions = torch.cat([embedding[:, None].expand(-1, len(self.blocks), -1), conditions], 2)
        return self.grow(first, conditions.unbind(1))


class Discriminator(ResidualDiscriminator):
    """Down-blocks that widen at once, with self-attention at one height; sum over places."""

    problem = staticmethod(problem)
    initial_value = staticmethod(initial_value)

    def __init__(self, settings: NetworkSettings) -> None:
        channels = [settings.d_channels * width for width in D_WIDTHS[settings.nominal]]
        super().__init__(settings, channels, True, attention_height(settings))
