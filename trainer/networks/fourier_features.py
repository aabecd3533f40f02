"""StyleGAN3's input: Fourier features of the plane, which a style turns and moves (arXiv:2106.12423, §3.2)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.networks.alias_free import Band
from trainer.networks.equalized import Linear


def draw_frequencies(rng: np.random.Generator, n: int, cutoff: float) -> npt.NDArray[np.float64]:
    """Draw frequencies (n, 2) from the uniform distribution over the disc whose radius is the cutoff."""
    drawn = rng.standard_normal((n, 2))
    # Of two normal numbers r² / 2 is exponential, so that exp(-r² / 4) is the root of a uniform number.
    radius = np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.asarray(drawn / radius * np.exp(-(radius**2) / 4) * cutoff)


class FourierFeatures(nn.Module):
    """sin(2 pi (<f, x> + phase)) for each of many frequencies f, and a linear map of them.

    A code gives (r_c, r_s, t_x, t_y): the picture is turned by the angle of (r_c, r_s), then moved by t over the length
    of (r_c, r_s). Lengths are in sides of a square picture.

    `transform` (3, 3) is a transformation of the plane for a user to set: the inverse of what is to become of the
    picture, in homogeneous coordinates (x right, y down, from the middle). It is the identity otherwise, and no part of
    a state.

    Args:
        band: what it puts out.
        w_dim: dimensions of a code.
    """

    frequencies: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, band: Band, w_dim: int) -> None:
        super().__init__()
        self.band = band
        self.weight = nn.Parameter(torch.zeros(band.channels, band.channels))
        self.affine = Linear(w_dim, 4)
        self.register_buffer("frequencies", torch.zeros(band.channels, 2))
        self.register_buffer("phases", torch.zeros(band.channels))
        self.register_buffer("transform", torch.eye(3), persistent=False)

    def forward(self, code: Float[Tensor, "n w_dim"]) -> Float[Tensor, "n c h w"]:
        """Return the features, in full precision: a small error of the phase would move all of the picture."""
        with torch.autocast(code.device.type, enabled=False):
            matrix, shift = self.placing(code.to(self.weight.dtype))
            turned = self.frequencies @ matrix  # (n, c, 2)
            phases = self.phases + (shift[:, None] * self.frequencies).sum(2)
            waves = (self.places() @ turned.mT[:, None] + phases[:, None, None]) * (2 * math.pi)
            x = waves.sin() * self.amplitudes(turned)[:, None, None]
            features: Tensor = x @ (self.weight.T / math.sqrt(self.band.channels))
        return features.permute(0, 3, 1, 2)

    def placing(self, code: Float[Tensor, "n w_dim"]) -> tuple[Float[Tensor, "n 2 2"], Float[Tensor, "n 2"]]:
        """Return the matrix and the shift that take places of the picture to those of the waves."""
        placed = self.affine(code)
        c, s, x, y = (placed / placed[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        rotation = torch.stack([c, -s, s, c], 1).view(-1, 2, 2)
        linear, shift = self.transform[:2, :2], self.transform[:2, 2]
        # The user's transformation comes first, then the move, then the turn.
        return rotation @ linear, (rotation @ (shift - torch.stack([x, y], 1))[:, :, None])[:, :, 0]

    def amplitudes(self, frequencies: Float[Tensor, "n c 2"]) -> Float[Tensor, "n c"]:
        """Return 1, and less the nearer a user's transformation brings a frequency to what the places cannot hold."""
        over = frequencies.norm(dim=2) - self.band.cutoff
        kept: Tensor = 1 - over / (self.band.rate / 2 - self.band.cutoff)
        return kept.clamp(0, 1)

    def places(self) -> Float[Tensor, "h w 2"]:
        """Return x and y of each place, from the middle."""
        y, x = (
            (torch.arange(n, device=self.weight.device, dtype=self.weight.dtype) + (1 - n) / 2) / self.band.rate
            for n in self.band.size
        )
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)
