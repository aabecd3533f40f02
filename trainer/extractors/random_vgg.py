"""VGG16 with random weights: features that need no file and know nothing of photographs.

Naeem et al. 2020, arXiv:2002.09797, §3.2 use its 64 features where the data is unlike ImageNet. The layers are those of
VGG16 (Simonyan and Zisserman 2015, arXiv:1409.1556, table 1, D) at a quarter of its width and with 64 features in the
second fully connected layer, so that a CPU can afford it; weights as in He et al. 2015, arXiv:1502.01852, keyed.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from trainer.extractors.base import DEFAULT_OPTIONS, Extractor, ExtractorOptions, Network, Outputs
from trainer.extractors.weights import build_with_weights, random_weights, weights_fingerprint

CONVOLUTIONS = (2, 2, 3, 3, 3)  # between poolings
WIDTHS = (16, 32, 64, 128, 128)
HIDDEN = 1024


class RandomVgg(Network):
    """VGG16 up to its second fully connected layer, whose values before the ReLU are the features."""

    size = 64
    dim = 64

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for count, wider in zip(CONVOLUTIONS, WIDTHS, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU()]
                width = wider
            layers.append(nn.MaxPool2d(2))
        left = width * (self.size >> len(WIDTHS)) ** 2
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(left, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, self.dim)
        )

    def forward(self, x: Float[Tensor, "n 3 64 64"]) -> Outputs:
        """Return features alone."""
        return self.layers(x / 127.5 - 1), None


def open_random_vgg(options: ExtractorOptions = DEFAULT_OPTIONS, /) -> Extractor:
    """Open random VGG; it needs no file."""
    weights = random_weights(RandomVgg, "random-vgg")  # by a fixed key: the same network on every machine
    network = build_with_weights(RandomVgg, weights, "random-vgg")
    return Extractor("random-vgg", weights_fingerprint(weights), network, options.resize or "clean")
