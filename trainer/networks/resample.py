"""Resampling with the low-pass filter [1, 3, 3, 1] along both axes, as StyleGAN2 and R3GAN do.

Each is one depthwise convolution, whose second derivative is one as well (convolution.py). Beyond the border there are
zeros. All is in the precision of what comes in, also under autocast: a picture is a sum over sides.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Filter(nn.Module):
    """The filter, whose entries sum to `gain`; they are exact in every precision."""

    taps: Tensor

    def __init__(self, gain: float) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("taps", (gain * torch.outer(row, row))[None, None], persistent=False)

    def weight(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "c 1 4 4"]:
        """Return it as the weight of a depthwise convolution of x."""
        return self.taps.to(x.dtype).expand(x.shape[1], 1, 4, 4)


class Blur(Filter):
    """Filter, and keep every `stride`-th place.

    Args:
        padding: zeros on each side; the filter takes three places away.
        stride: distance of the places that are kept.
        gain: factor on the result; 4 where three of four places are zeros that stand between the pixels.
    """

    def __init__(self, padding: int, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__(gain)
        self.padding, self.stride = padding, stride

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c i j"]:
        """Filter each channel."""
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x, self.weight(x), None, self.stride, self.padding, groups=x.shape[1])


class Downsample(Blur):
    """Halve the sides."""

    def __init__(self) -> None:
        super().__init__(padding=1, stride=2)


class Upsample(Filter):
    """Double the sides: zeros between the pixels, then the filter."""

    def __init__(self) -> None:
        super().__init__(gain=4.0)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
        """Enlarge each channel."""
        with torch.autocast(x.device.type, enabled=False):
            return F.conv_transpose2d(x, self.weight(x), None, stride=2, padding=1, groups=x.shape[1])
