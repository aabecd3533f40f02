"""What turns pictures into features: a frozen network behind a filter that brings pictures to its size."""

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
from trainer.core.registry import choose
from trainer.extractors.resize import FILTERS, Images

BATCH = 32
DIGITS = 8  # of a hash, in a label
CACHE = Path("~/.cache/lienzo")

Missing = Literal["learn", "wait", "leave"]

Outputs = tuple[Float[Tensor, "n d"], Float[Tensor, "n classes"] | None]
"""Features, and logits if there are classes."""


@dataclass(frozen=True)
class Features:
    """What an extractor says of n pictures."""

    features: npt.NDArray[np.float32]  # (n, d)
    probabilities: npt.NDArray[np.float32] | None  # (n, classes), rows add up to 1; None: it tells no classes


class Network(nn.Module):
    """A network that sees pictures, with all that belongs to it but its weights.

    Its forward takes (n, 3, size, size) in [0, 255] and scales them itself.
    """

    size: int
    """Height and width of the pictures that it sees."""
    dim: int
    """Features of a picture."""
    classes: int = 0
    """How many classes its logits are of; 0: it gives none."""

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Outputs:
        """Return features and logits."""
        raise NotImplementedError


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Compute in float32 by kernels that repeat, whatever is set around."""
    kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.autocast(device.type, enabled=False), kernels:
            yield
    finally:
        matmul.allow_tf32 = before


def usual_device() -> torch.device:
    """Return a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Extractor:
    """A frozen network: equal pictures give equal bits, whatever pictures are measured beside them.

    Batches have one fixed size, because a kernel may round otherwise where fewer pictures are computed at a time.

    Args:
        name: in the registry.
        version: tells its weights from any others; a prefix of a hash.
        network: with its weights.
        resize: the filter, one of FILTERS.
        note: what else is to be known of it, in words.

    Raises:
        Refused: there is no such filter.
    """

    def __init__(self, name: str, version: str, network: Network, resize: str, note: str = "") -> None:
        self.note = note
        self.name, self.version, self.resize = name, version, resize
        self.dim, self.classes = network.dim, network.classes
        self.filter = choose(FILTERS, resize, "filter")
        self.device = usual_device()
        self.network = network.float().requires_grad_(False).to(self.device).eval()

    @property
    def label(self) -> str:
        """Its name in columns of figures: what has another label is not comparable."""
        return f"{self.name}-{self.version}/{self.resize}-{self.network.size}/uint8"

    def __call__(self, pictures: Images) -> Features:
        """Look at pictures.

        Args:
            pictures: (n, h, w, 3), n at least 1.
        """
        seen = [self.see(pictures[rows]) for rows in batched(range(len(pictures)), BATCH)]
        told = [probabilities for _, probabilities in seen if probabilities is not None]
        return Features(np.concatenate([features for features, _ in seen]), np.concatenate(told) if told else None)

    @torch.inference_mode()
    def see(self, pictures: Images) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Look at no more than a batch, filled up with its last picture."""
        count, size = len(pictures), self.network.size
        x = self.filter(pictures, size)
        x = torch.cat([x, x[-1:].expand(BATCH - count, -1, -1, -1)])
        with exact(self.device):
            features, logits = self.network(x.to(self.device))
        told = None if logits is None else logits[:count].softmax(1).cpu().numpy()
        return features[:count].cpu().numpy(), told


@dataclass(frozen=True)
class Labelled:
    """Pictures with classes, by number, for the classifier that learns them.

    Args:
        name: says in words what they are.
        key: names the content: equal keys, equal pictures.
        classes: names of the classes.
        count: how many there are.
        read: returns the pictures and classes of these numbers: (n, h, w, 3) and (n,).
    """

    name: str
    key: tuple[str, ...]
    classes: tuple[str, ...]
    count: int
    read: Callable[[npt.NDArray[np.int64]], tuple[Images, npt.NDArray[np.int64]]]


@dataclass(frozen=True)
class Options:
    """What may be said when an extractor is opened.

    Args:
        weights: its file of weights, in place of the one in the folder of weights.
        resize: a filter in place of its own.
        data: what a classifier learns from.
        cache: the folder of what is dear to make again.
        missing: what is done about a classifier that is not there: "learn" it; "wait" for another process that does,
            and learn it if that one gives no sign of life; "leave" it, and open one that knows nothing yet.
    """

    weights: Path | None = None
    resize: str | None = None
    data: Labelled | None = None
    cache: Path = field(default_factory=CACHE.expanduser)
    missing: Missing = "learn"


USUAL = Options()


class Opener(Protocol):
    """An entry of the registry.

    Raises:
        Refused: it cannot be opened; the message says what to do.
    """

    def __call__(self, options: Options = ..., /) -> Extractor:
        """Open the extractor."""
