"""Inception-2015: the network that FID, KID and the Inception Score are defined with.

Szegedy et al. 2015, arXiv:1512.00567, as Google published it in inception-2015-12-05.tgz and others carried over. It
differs from the Inception v3 of torchvision: average pools do not count what they pad with, the last block has a
maximum in their place, and there are 1008 classes. Names of tensors are those of the published file.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, batch_norm, max_pool2d, relu

from trainer.extractors.base import DEFAULT_OPTIONS, Extractor, ExtractorOptions, Network, Outputs
from trainer.extractors.weights import Published, WeightsFile, build_with_weights

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILE = WeightsFile(
    "inception-2015",
    (
        Published(
            "pt_inception-2015-12-05-6726825d.pth",
            SHA256,
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights",
        ),
        Published(
            "weights-inception-2015-12-05-6726825d.pth",
            SHA256,
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0",
        ),
    ),
    others=False,
)
GREY = {"torch-bilinear": 127.5}  # the value that becomes 0: pytorch-fid, with this filter, scales to [-1, 1]
Maps = Float[Tensor, "n c h w"]
Kernel = int | tuple[int, int]


class Norm(nn.Module):
    """BatchNorm with the statistics of the file."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))
        self.register_buffer("running_mean", torch.empty(width))
        self.register_buffer("running_var", torch.empty(width))

    def forward(self, x: Maps) -> Maps:
        """Return maps of mean `bias` and deviation `weight`, if x is as it was in training."""
        # TensorFlow's eps; torch's own is 1e-5.
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=0.001)


class Unit(nn.Module):
    """Convolution, normalisation by fixed statistics, ReLU; it keeps the size unless it is valid or has a stride."""

    def __init__(self, width: int, wider: int, kernel: Kernel = 1, stride: int = 1, valid: bool = False) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid or stride > 1 else (sides[0] // 2, sides[1] // 2)
        self.conv = nn.Conv2d(width, wider, sides, stride, padding, bias=False)
        self.bn = Norm(wider)

    def forward(self, x: Maps) -> Maps:
        """Return (n, wider, h, w)."""
        return relu(self.bn(self.conv(x)))


def average_pool(x: Maps) -> Maps:
    """Average over 3 x 3; at the border, over the values that exist."""
    return avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class BlockA(nn.Module):
    """35 x 35: kernels of 1, of 5, and twice 3."""

    def __init__(self, width: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(width, 64)
        self.branch5x5_1, self.branch5x5_2 = Unit(width, 48), Unit(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(width, 64), Unit(64, 96, 3)
        self.branch3x3dbl_3 = Unit(96, 96, 3)
        self.branch_pool = Unit(width, pooled)

    def forward(self, x: Maps) -> Maps:
        """Return (n, 224 + pooled, h, w)."""
        fives = self.branch5x5_2(self.branch5x5_1(x))
        threes = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), fives, threes, self.branch_pool(average_pool(x))], 1)


class BlockB(nn.Module):
    """From 35 x 35 to 17 x 17."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(width, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(width, 64), Unit(64, 96, 3)
        self.branch3x3dbl_3 = Unit(96, 96, 3, 2)

    def forward(self, x: Maps) -> Maps:
        """Return (n, 480 + width, h', w')."""
        threes = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), threes, max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """17 x 17: kernels of 7, as rows and columns."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = Unit(width, 192)
        self.branch7x7_1, self.branch7x7_2 = Unit(width, inner), Unit(inner, inner, row)
        self.branch7x7_3 = Unit(inner, 192, column)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Unit(width, inner), Unit(inner, inner, column)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Unit(inner, inner, row), Unit(inner, inner, column)
        self.branch7x7dbl_5 = Unit(inner, 192, row)
        self.branch_pool = Unit(width, 192)

    def forward(self, x: Maps) -> Maps:
        """Return (n, 768, h, w)."""
        sevens = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), sevens, twice, self.branch_pool(average_pool(x))], 1)


class BlockD(nn.Module):
    """From 17 x 17 to 8 x 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Unit(width, 192), Unit(192, 320, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Unit(width, 192), Unit(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = Unit(192, 192, (7, 1)), Unit(192, 192, 3, 2)

    def forward(self, x: Maps) -> Maps:
        """Return (n, 512 + width, h', w')."""
        threes = self.branch3x3_2(self.branch3x3_1(x))
        sevens = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([threes, sevens, max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """8 x 8: kernels of 3, split into a row beside a column."""

    def __init__(self, width: int, maximum: bool) -> None:
        super().__init__()
        row, column = (1, 3), (3, 1)
        self.maximum = maximum
        self.branch1x1, self.branch3x3_1 = Unit(width, 320), Unit(width, 384)
        self.branch3x3_2a, self.branch3x3_2b = Unit(384, 384, row), Unit(384, 384, column)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(width, 448), Unit(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Unit(384, 384, row), Unit(384, 384, column)
        self.branch_pool = Unit(width, 192)

    def forward(self, x: Maps) -> Maps:
        """Return (n, 2048, h, w)."""
        once, twice = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        # In its last block the network of 2015 pools by the maximum.
        pooled = max_pool2d(x, 3, 1, 1) if self.maximum else average_pool(x)
        branches = [
            self.branch1x1(x),
            *(self.branch3x3_2a(once), self.branch3x3_2b(once)),
            *(self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)),
            self.branch_pool(pooled),
        ]
        return torch.cat(branches, 1)


class Inception(Network):
    """The network, up to the logits.

    Args:
        grey: the pixel value that is scaled to 0; 0 is scaled to -1.
    """

    size = 299
    dim = 2048
    classes = 1008  # outputs in the file; 1,000 of them are ImageNet's classes

    def __init__(self, grey: float = 128) -> None:
        super().__init__()
        self.grey = grey
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, 2)
        self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = Unit(32, 32, 3, valid=True), Unit(32, 64, 3)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Unit(64, 80), Unit(80, 192, 3, valid=True)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c = BlockC(768, 128), BlockC(768, 160)
        self.Mixed_6d, self.Mixed_6e = BlockC(768, 160), BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, maximum=False), BlockE(2048, maximum=True)
        self.fc = nn.Linear(self.dim, self.classes)

    def forward(self, x: Float[Tensor, "n 3 299 299"]) -> Outputs:
        """Return features, (n, 2048), and logits, (n, 1008): without their bias, as all published scores have them."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3((x - self.grey) / self.grey)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        features = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))
        return features, features @ self.fc.weight.T


def open_inception(options: ExtractorOptions = DEFAULT_OPTIONS, /) -> Extractor:
    """Open Inception-2015 from the user's file."""
    resize = options.resize or "tf-bilinear"
    weights, version, path = FILE.read(options.weights)
    # Some state dicts have these counters of BatchNorm, which evaluation does not use.
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    network = build_with_weights(lambda: Inception(GREY.get(resize, 128)), weights, path)
    return Extractor("inception-2015", version, network, resize)
