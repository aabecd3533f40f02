"""Resampling with the low-pass filter [1, 3, 3, 1] along both axes, as StyleGAN2 and R3GAN do.

The filter is that of three boxes [1, 1] in a row, and so it is computed: by pooling, which every device does fast and
differentiates twice at no more cost.
Beyond the border there are zeros.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Blur(nn.Module):
    """Filter, and keep every `stride`-th place.

    Args:
        padding: zeros on each side; the filter takes three places away.
        stride: distance of the places that are kept.
        gain: factor on the result; 4 where three of four places are zeros that stand between the pixels.
    """

    def __init__(self, padding: int, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.padding, self.stride, self.gain = padding, stride, gain

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c i j"]:
        """Filter each channel."""
        # Pooling over two places is the box [1, 1] / 2.
        x = F.avg_pool2d(F.avg_pool2d(F.pad(x, (self.padding,) * 4), 2, 1), 2, 1)
        # The third box and the stride: of two neighbours, every stride-th pair.
        out = F.avg_pool2d(x, 2, self.stride)
        return out if self.gain == 1 else out * self.gain


class Downsample(Blur):
    """Halve the sides."""

    def __init__(self) -> None:
        super().__init__(padding=1, stride=2)


class Upsample(nn.Module):
    """Double the sides: zeros between the pixels, then the filter; its first box makes each pixel four."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
        """Enlarge each channel."""
        x = F.pad(F.interpolate(x, scale_factor=2), (1,) * 4)
        return F.avg_pool2d(F.avg_pool2d(x, 2, 1), 2, 1)
