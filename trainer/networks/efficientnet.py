"""EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946; the Lite variant of 2020), up to its last block, frozen.

The names of its weights are those of timm's tf_efficientnet_lite0, whose files can be read: ReLU6 in place of swish, no
squeeze-and-excitation, and TensorFlow's padding, which is one larger below and to the right where the stride is 2.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-3  # of BatchNorm, TensorFlow's
STEM = 32
# Expansion, width, blocks, stride of the first, kernel.
STAGES = (
    *((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3)),
    *((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
)
CUTS = (2, 3, 5, 7)
"""Stages after which the sides are a 4th, 8th, 16th and 32nd of the picture's for the last time."""
CHANNELS = tuple(STAGES[cut - 1][1] for cut in CUTS)


class Conv(nn.Conv2d):
    """A convolution with TensorFlow's padding "same", without a bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h/s w/s"]:
        """Pad, and convolve."""
        around = [self.missing(side) for side in (x.shape[3], x.shape[2])]
        padding = [part for total in around for part in (total // 2, total - total // 2)]
        return super().forward(F.pad(x, padding))

    def missing(self, side: int) -> int:
        """Return the places that an axis lacks."""
        stride, kernel = self.stride[0], self.kernel_size[0]
        return max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)


def norm(channels: int) -> nn.BatchNorm2d:
    """Return the normalisation; it is only ever evaluated."""
    return nn.BatchNorm2d(channels, eps=EPS)


class SeparableBlock(nn.Module):
    """The first block: a convolution of each channel, and a mixture of them."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = Conv(inputs, inputs, kernel, groups=inputs), norm(inputs)
        self.conv_pw, self.bn2 = Conv(inputs, outputs, 1), norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        out: Tensor = self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))
        return out


class InvertedBlock(nn.Module):
    """More channels, a convolution of each of them, and fewer again; where nothing else changes, beside the input."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.conv_pw, self.bn1 = Conv(inputs, hidden, 1), norm(hidden)
        self.conv_dw, self.bn2 = Conv(hidden, hidden, kernel, stride, hidden), norm(hidden)
        self.conv_pwl, self.bn3 = Conv(hidden, outputs, 1), norm(outputs)
        self.adds = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        hidden = F.relu6(self.bn2(self.conv_dw(F.relu6(self.bn1(self.conv_pw(x))))))
        out: Tensor = self.bn3(self.conv_pwl(hidden))
        return x + out if self.adds else out


class EfficientNetLite0(nn.Module):
    """From pictures to four feature maps."""

    channels = CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = Conv(3, STEM, 3, 2), norm(STEM)
        self.blocks = nn.ModuleList()
        inputs = STEM
        for expansion, width, count, stride, kernel in STAGES:
            stage = nn.Sequential()
            for k in range(count):
                first = SeparableBlock(inputs, width, kernel) if expansion == 1 else None
                stage.append(first or InvertedBlock(inputs, width, expansion, kernel, stride if k == 0 else 1))
                inputs = width
            self.blocks.append(stage)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Return the maps of a 4th, 8th, 16th and 32nd of the sides."""
        x, maps = F.relu6(self.bn1(self.conv_stem(x))), []
        for k, stage in enumerate(self.blocks, 1):
            x = stage(x)
            if k in CUTS:
                maps.append(x)
        return maps
