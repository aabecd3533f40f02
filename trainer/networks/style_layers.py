"""Layers of StyleGAN2 that know styles: the mapping network, and convolutions that a style modulates."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.networks.base import one_hot
from trainer.networks.equalized import Linear, scaled_lrelu
from trainer.networks.resample import Blur

MAPPING_RATE = 0.01  # factor on the mapping networks' learning rate (Karras et al. 2019, appendix C)
EPS = 1e-8


def normalise_vectors(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Scale vectors to a mean square of one."""
    return x * (x.square().mean(1, keepdim=True) + EPS).rsqrt()


class Mapping(nn.Module):
    """z, the class or both to a vector: each is normalised, then layers at a hundredth of the learning rate.

    All of it is in full precision under autocast.
    """

    def __init__(self, z_dim: int, classes: int, outputs: int, layers: int) -> None:
        super().__init__()
        self.classes = classes
        self.embed = Linear(classes + 1, outputs) if classes else None
        dims = [z_dim + (outputs if classes else 0)] + [outputs] * layers
        self.layers = nn.ModuleList(Linear(before, after, MAPPING_RATE) for before, after in pairwise(dims))

    def forward(self, z: Float[Tensor, "n z"] | None, label: Int[Tensor, " n"]) -> Float[Tensor, "n o"]:
        """Map to w, or to a class's direction."""
        # Every style follows from w: in bf16 its rounding would show in all of the picture.
        with torch.autocast(label.device.type, enabled=False):
            parts = [] if z is None else [z]
            if self.embed is not None:
                parts.append(self.embed(one_hot(label, self.classes).to(self.embed.weight.dtype)))
            x = torch.cat([normalise_vectors(part) for part in parts], 1)
            for layer in self.layers:
                x = scaled_lrelu(layer(x))
        return x


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style (§2.2, eqs. 1-3).

    In place of each sample's own weights, the input is scaled by the style and the output by the demodulation: the same
    function, by one ordinary convolution for the whole micro-batch. On a CPU that is as fast as a grouped one, and
    about three times as fast where maps are small. Styles and demodulation keep full precision under autocast.
    """

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, kernel: int, up: bool = False, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.affine = Linear(w_dim, inputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        self.gain = 1 / math.sqrt(inputs * kernel**2)
        # Of s places the transposed convolution makes 2 s + 1, and the filter leaves 2 s.
        self.blur = Blur(padding=1, gain=4) if up else None
        self.demodulate = demodulate

    def forward(self, x: Float[Tensor, "n i h w"], w: Float[Tensor, "n w_dim"]) -> Float[Tensor, "n o p q"]:
        """Convolve x as the style says."""
        # Equalised learning rate: weights are N(0, 1), and scaled as they are used (Karras et al. 2018, §4.1).
        weight = self.weight * self.gain
        with torch.autocast(x.device.type, enabled=False):
            style = self.affine(w)
            # Eq. 3: one over the root of the sum over inputs i and places k of (s_i w_oik)², for each output o.
            norm = F.linear(style.square(), weight.square().sum((2, 3))).add(EPS).rsqrt() if self.demodulate else None
        # Scaling the input by the style equals scaling the weights' input channels; likewise for the output.
        x = x * style.to(x.dtype)[:, :, None, None]
        if self.blur is None:
            x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        else:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        return x if norm is None else x * norm.to(x.dtype)[:, :, None, None]


class StyledConv(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias and LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, w_dim, 3, up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, x: Float[Tensor, "n i h w"], w: Float[Tensor, "n w_dim"], noise: Float[Tensor, "n 1 p q"]
    ) -> Float[Tensor, "n o p q"]:
        """Compute the next feature maps."""
        x = self.conv(x, w)
        # The strength is learnt, and begins at zero: no noise until it helps.
        x = x + (self.strength * noise).to(x.dtype)
        return scaled_lrelu(x + self.bias.to(x.dtype)[:, None, None])


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution to a picture, without demodulation."""

    def __init__(self, inputs: int, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, w_dim, 1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Float[Tensor, "n c h w"], w: Float[Tensor, "n w_dim"]) -> Float[Tensor, "n 3 h w"]:
        """Return what this side adds to the picture, in the bias's precision: the sum over sides needs it."""
        out: Tensor = self.conv(x, w) + self.bias[:, None, None]
        return out
