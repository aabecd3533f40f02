"""Self-attention over the places of a feature map (Zhang et al. 2019, arXiv:1805.08318, §3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.networks.network_settings import NetworkSettings


def problem(height: int, settings: NetworkSettings) -> str | None:
    """Return why neither network can attend at maps of this height, or None."""
    if height & (height - 1) or not 8 <= height <= settings.nominal // 2:
        return (
            f"network.attention must be a power of two from 8 to {settings.nominal // 2} at network.size "
            f"{settings.size}, or 0 for the network's own choice, but is {height}"
        )
    return None


def halve(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h//2 w//2"]:
    """Return the largest of each 2 x 2 places; in ties the gradient is shared."""
    out: Tensor = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))
    return out


class SelfAttention(nn.Module):
    """x + gamma o(sum_j beta_ij g(x_j)), with beta_i = softmax_j <theta(x_i), phi(x_j)>.

    As in the paper's code, keys (phi) and values (g) are max-pooled to half the height; keys have c/8 and values c/2
    channels; no convolution has a bias. The scalar gamma starts at 0, where the layer is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # At least one, for networks of few channels.
        keys, values = max(1, channels // 8), max(1, channels // 2)
        self.theta = nn.Conv2d(channels, keys, 1, bias=False)
        self.phi = nn.Conv2d(channels, keys, 1, bias=False)
        self.g = nn.Conv2d(channels, values, 1, bias=False)
        self.o = nn.Conv2d(values, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Let each place look at all others."""
        theta = self.theta(x).flatten(2)
        phi, g = halve(self.phi(x)).flatten(2), halve(self.g(x)).flatten(2)
        beta = (theta.transpose(1, 2) @ phi).softmax(2)  # beta[i, j]: how much place i takes from place j
        attended = (g @ beta.transpose(1, 2)).unflatten(2, x.shape[2:])
        out: Tensor = x + self.gamma * self.o(attended)
        return out
