"""DCGAN (Radford, Metz and Chintala 2016, arXiv:1511.06434), for any power-of-two size from 16."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.networks.batch_norm import BatchNorm2d
from trainer.randomness import philox
from trainer.settings import identity


@dataclass(frozen=True)
class DcganSettings:
    """The size of both networks."""

    size: int = identity(64)
    """Height and width of the pictures: 16, 32, 64, 128 or 256."""
    z_dim: int = identity(100)
    """Dimensions of the noise."""
    g_channels: int = identity(64)
    """Channels of the generator's last hidden layer; each earlier one has twice as many."""
    d_channels: int = identity(64)
    """Channels of the discriminator's first hidden layer; each later one has twice as many."""

    def check(self) -> str | None:
        """Return what is wrong with these settings, or None."""
        if self.size not in (16, 32, 64, 128, 256):
            return f"network.size must be 16, 32, 64, 128 or 256, but is {self.size}"
        for name in ("z_dim", "g_channels", "d_channels"):
            if getattr(self, name) < 1:
                return f"network.{name} must be positive, but is {getattr(self, name)}"
        return None

    @property
    def widths(self) -> list[int]:
        """Multiples of the base width, from the picture's side to the 4 x 4 side."""
        return [2**i for i in range(self.size.bit_length() - 3)]


class Generator(nn.Module):
    """Noise to pictures: fractionally strided convolutions, BatchNorm and ReLU, tanh at the end (§3)."""

    def __init__(self, settings: DcganSettings) -> None:
        super().__init__()
        channels = [settings.g_channels * width for width in reversed(settings.widths)]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(settings.z_dim, channels[0], 4, 1, 0, bias=False),
            BatchNorm2d(channels[0]),
            nn.ReLU(),
        ]
        for before, after in pairwise(channels):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(channels[-1], 3, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z: Float[Tensor, "n z"]) -> Float[Tensor, "n 3 h w"]:
        """Paint pictures in [-1, 1]."""
        out: Tensor = self.layers(z[:, :, None, None])
        return out


class Discriminator(nn.Module):
    """Pictures to logits: strided convolutions, BatchNorm on all but the first and the last, LeakyReLU (§3)."""

    def __init__(self, settings: DcganSettings) -> None:
        super().__init__()
        channels = [settings.d_channels * width for width in settings.widths]
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), BatchNorm2d(after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, 1, 0, bias=False))

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Judge pictures: high logits are real ones."""
        out: Tensor = self.layers(x)
        return out.flatten()


@torch.no_grad()
def initialise(network: nn.Module, seed: int, name: str) -> None:
    """Draw weights from N(0, 0.02), BatchNorm's gains from N(1, 0.02); biases are zero (§3).

    Each parameter's draw is keyed by the network's name and its own.
    """
    for key, parameter in network.named_parameters():
        if key.endswith("bias"):
            parameter.zero_()
            continue
        centre = 1.0 if parameter.ndim == 1 else 0.0
        draw = philox(seed, "weights", name, key).normal(centre, 0.02, tuple(parameter.shape))
        parameter.copy_(torch.from_numpy(draw))
