"""The Extractor: a filter that resizes images to the size of a network, and the frozen network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.core.iteration import batched
from trainer.core.registry import choose_from
from trainer.extractors.resize import FILTERS, Images

BATCH = 32
HASH_DIGITS = 8  # of a hash, in a label
CACHE = Path("~/.cache/lienzo")

Triple = tuple[float, float, float]
Missing = Literal["learn", "wait", "leave"]

Outputs = tuple[Float[Tensor, "n d"], Float[Tensor, "n classes"] | None]
"""Features, and logits if there are classes."""


@dataclass(frozen=True)
class Features:
    """The output of an extractor for n images."""

    features: npt.NDArray[np.float32]  # (n, d)
    probabilities: npt.NDArray[np.float32] | None  # (n, classes), rows sum to 1; None: it has no classes


class Network(nn.Module):
    """The architecture of an extractor, without weights.

    Its forward takes (n, 3, size, size) in [0, 255], and normalizes them itself.
    """

    size: int
    """Height and width of its input."""
    dim: int
    """Number of features per image."""
    classes: int = 0
    """Number of logits; 0: it has none."""

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Outputs:
        """Return features and logits."""
        raise NotImplementedError


@contextmanager
def exact_kernels(device: torch.device) -> Iterator[None]:
    """Compute in float32 with deterministic kernels, whatever the caller has set."""
    kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    matmul = torch.backends.cuda.matmul  # cudnn.flags below sets TF32 for convolutions only
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.autocast(device.type, enabled=False), kernels:
            yield
    finally:
        matmul.allow_tf32 = before


def normalize_images(x: Float[Tensor, "n 3 h w"], mean: Triple, deviation: Triple) -> Float[Tensor, "n 3 h w"]:
    """Bring images in [0, 255] to [0, 1], and subtract the mean and divide by the deviation of the training images."""
    return (x / 255 - x.new_tensor(mean).reshape(3, 1, 1)) / x.new_tensor(deviation).reshape(3, 1, 1)


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Extractor:
    """A frozen network: equal images give equal bits, whatever other images are in the batch.

    Batches have one fixed size, because kernels may round differently for another size.

    Args:
        name: in the registry.
        version: names its weights: a prefix of their hash.
        network: with its weights.
        resize: the filter, one of FILTERS.
        note: a remark for the user, such as the accuracy of a classifier.

    Raises:
        Refused: there is no such filter.
    """

    def __init__(self, name: str, version: str, network: Network, resize: str, note: str = "") -> None:
        self.note = note
        self.name, self.version, self.resize = name, version, resize
        self.dim, self.classes = network.dim, network.classes
        self.filter = choose_from(FILTERS, resize, "filter")
        self.device = default_device()
        # In evaluation mode BatchNorm uses its stored statistics, so that images of a batch do not affect one another.
        self.network = network.float().requires_grad_(False).to(self.device).eval()

    @property
    def label(self) -> str:
        """Its name in columns of figures: figures with different labels must not be compared."""
        return f"{self.name}-{self.version}/{self.resize}-{self.network.size}/uint8"

    def __call__(self, images: Images) -> Features:
        """Return features and class probabilities of images.

        Args:
            pictures: (n, h, w, 3), n at least 1.
        """
        seen = [self.see(images[rows]) for rows in batched(range(len(images)), BATCH)]
        told = [probabilities for _, probabilities in seen if probabilities is not None]
        return Features(np.concatenate([features for features, _ in seen]), np.concatenate(told) if told else None)

    @torch.inference_mode()
    def see(self, images: Images) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Return features and probabilities of at most a batch, which is padded with copies of its last image."""
        count, size = len(images), self.network.size
        x = self.filter(images, size)
        # Always a whole batch: the kernels that are chosen, and so the bits, may depend on its size.
        x = torch.cat([x, x[-1:].expand(BATCH - count, -1, -1, -1)])
        with exact_kernels(self.device):
            features, logits = self.network(x.to(self.device))
        told = None if logits is None else logits[:count].softmax(1).cpu().numpy()
        return features[:count].cpu().numpy(), told


@dataclass(frozen=True)
class LabelledImages:
    """Images with classes, by number: the training data of the classifier.

    Args:
        name: what they are, for messages.
        key: names the content: equal keys mean equal images.
        classes: names of the classes.
        count: how many there are.
        read: returns the images and classes of these numbers: (n, h, w, 3) and (n,).
    """

    name: str
    key: tuple[str, ...]
    classes: tuple[str, ...]
    count: int
    read: Callable[[npt.NDArray[np.int64]], tuple[Images, npt.NDArray[np.int64]]]


@dataclass(frozen=True)
class ExtractorOptions:
    """Options with which an extractor is opened.

    Args:
        weights: its file of weights; None: the one in the folder of weights.
        resize: the filter; None: its usual one.
        data: the training data of a classifier.
        cache: the folder of trained classifiers.
        missing: what to do if the classifier is not trained yet. "learn": train it. "wait": wait for the process that
            trains it, and train it if that one shows no heartbeat. "leave": open an untrained one, for a dry run.
    """

    weights: Path | None = None
    resize: str | None = None
    data: LabelledImages | None = None
    cache: Path = field(default_factory=CACHE.expanduser)
    missing: Missing = "learn"


DEFAULT_OPTIONS = ExtractorOptions()


class Opener(Protocol):
    """An entry of the registry.

    Raises:
        Refused: it cannot be opened; the message says what to do.
    """

    def __call__(self, options: ExtractorOptions = ..., /) -> Extractor:
        """Open the extractor."""
