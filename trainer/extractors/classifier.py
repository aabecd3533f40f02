"""A classifier of the data's own classes: its features are those that distinguish the classes.

It needs no file, and its classes are those of the data, so that the Inception Score is meaningful. It is trained once,
from keyed random weights and in a keyed order, and stored under a hash of the data. A tenth of the images is held out
to measure its accuracy. The process that trains it touches a heartbeat file, so that others know how long to wait.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from shards.atomic_files import write_atomically
from shards.dataset.order import permute
from trainer.core.fields import Refused
from trainer.extractors.base import (
    DEFAULT_OPTIONS,
    Extractor,
    ExtractorOptions,
    LabelledImages,
    Network,
    Outputs,
    default_device,
    exact_kernels,
)
from trainer.extractors.resize import Images, resize_clean
from trainer.extractors.weights import Weights, build_with_weights, random_weights, weights_fingerprint

SCHEMA = "1"  # of the training below: a change of it needs a new number, so that old classifiers are not used
WIDTHS = (32, 64, 128)
GROUPS = 8
BATCH = 64
EPOCHS = 10
MAX_IMAGES_SEEN = 60_000  # in all epochs together
RATE = 2e-3
PATIENCE_S = 120.0  # without a heartbeat; network file systems may show one a minute late
HELD_OUT = 10  # one image of so many measures the accuracy
NEEDS_CLASSES = "the extractor classifier learns the classes of the data, and"

Places = npt.NDArray[np.int64]
Maps = Float[Tensor, "n c h w"]


class Residual(nn.Module):
    """Two convolutions beside a way past them (He et al. 2016, arXiv:1603.05027), at half the size."""

    def __init__(self, width: int, wider: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, wider, 3, 2, 1)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, wider), nn.Conv2d(wider, wider, 3, 1, 1)
        self.past = nn.Conv2d(width, wider, 1, 2)

    def forward(self, x: Maps) -> Maps:
        """Return (n, wider, h / 2, w / 2)."""
        x = relu(self.norm1(x))
        out: Maps = self.past(x) + self.conv2(relu(self.norm2(self.conv1(x))))
        return out


class Classifier(Network):
    """A small residual network with GroupNorm, which does not mix the images of a batch as BatchNorm does.

    Args:
        classes: how many.
    """

    size = 32
    dim = WIDTHS[-1]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.first = nn.Conv2d(3, WIDTHS[0], 3, 1, 1)
        self.blocks = nn.Sequential(*(Residual(a, b) for a, b in zip(WIDTHS, (*WIDTHS[1:], self.dim), strict=True)))
        self.norm = nn.GroupNorm(GROUPS, self.dim)
        self.last = nn.Linear(self.dim, classes)

    def forward(self, x: Float[Tensor, "n 3 32 32"]) -> Outputs:
        """Return the means over positions of the last maps, (n, 128), and logits."""
        features = relu(self.norm(self.blocks(self.first(x / 127.5 - 1)))).mean((2, 3))
        return features, self.last(features)


def index_batches(count: int, seen: int) -> Iterator[Places]:
    """Yield batches of indices below `count`, `seen` in all: each once per epoch, in a keyed order."""
    for start in range(0, seen, BATCH):
        at = np.arange(start, start + BATCH)
        # A batch may lie across two epochs, each of which has an order of its own.
        orders = [permute(at[at // count == e] % count, count, "classifier", int(e)) for e in np.unique(at // count)]
        yield np.concatenate(orders).astype(np.int64)


def train_classifier(data: LabelledImages) -> tuple[Weights, float]:
    """Train a classifier.

    Returns:
        Its weights, and its accuracy on the held-out images.
    """
    shuffled = permute(np.arange(data.count), data.count, "classifier split").astype(np.int64)
    # By a keyed permutation, as data may be sorted by class.
    unseen, seen = np.split(shuffled, [-(-data.count // HELD_OUT)])
    device, classes = default_device(), len(data.classes)
    weights = random_weights(lambda: Classifier(classes), "classifier")
    network = build_with_weights(lambda: Classifier(classes), weights, "classifier").to(device)
    steps = max(1, min(EPOCHS * len(seen), MAX_IMAGES_SEEN) // BATCH)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    # Deterministic kernels: every machine of the same kind trains the same classifier, and gets the same label.
    with exact_kernels(device), torch.enable_grad():
        for rows in index_batches(len(seen), steps * BATCH):
            images, labels = data.read(seen[rows])
            logits = network(resize_clean(images, network.size).to(device))[1]
            # Images without a class have the label -1, and do not count.
            loss = cross_entropy(logits, torch.from_numpy(labels).to(device), ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cosine.step()
    found = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return found, class_accuracy(Extractor("classifier", "", network, "clean"), data, unseen)


def class_accuracy(extractor: Extractor, data: LabelledImages, rows: Places) -> float:
    """Return the accuracy on the images that have a class."""
    right = total = 0
    for start in range(0, len(rows), 256):
        images, labels = data.read(rows[start : start + 256])
        told = extractor(images).probabilities
        assert told is not None
        right += int((told.argmax(1) == labels).sum())
        total += int((labels >= 0).sum())
    return right / max(1, total)


def load_classifier(path: Path) -> tuple[Weights, float] | None:
    """Return stored weights and accuracy; None: there are none, or they are damaged."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    # Of a file that was cut or has changed a classifier is trained again.
    if raw[:16] != xxhash.xxh3_128_digest(raw[16:]):
        return None
    weights = load(raw[16:])
    return weights, float(weights.pop("accuracy"))


def save_classifier(path: Path, weights: Weights, share: float) -> None:
    """Store weights and accuracy, atomically.

    Raises:
        Refused: it cannot be written.
    """
    raw = save(weights | {"accuracy": torch.tensor(share, dtype=torch.float64)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, xxhash.xxh3_128_digest(raw) + raw)
    except OSError as error:
        raise Refused(f"the classifier cannot be kept in {path.parent}: {error.strerror}; name a --cache") from error


def heartbeat_file(path: Path) -> Path:
    """Return the file that is touched while the classifier of `path` is being trained."""
    return path.with_suffix(".learning")


def wait_for_classifier(path: Path) -> tuple[Weights, float] | None:
    """Wait for the classifier that another process trains; None: it had no heartbeat for PATIENCE_S."""
    last, since = None, time.monotonic()
    while (found := load_classifier(path)) is None and time.monotonic() - since <= PATIENCE_S:
        with suppress(FileNotFoundError):
            beat = heartbeat_file(path).stat().st_mtime_ns  # compared with the last one only: clocks of nodes differ
            if beat != last:
                last, since = beat, time.monotonic()
        time.sleep(1)
    return found


def train_and_save(path: Path, data: LabelledImages) -> tuple[Weights, float]:
    """Train a classifier with a heartbeat, and store it.

    Raises:
        Refused: it cannot be stored.
    """

    def read(rows: Places) -> tuple[Images, Places]:
        with suppress(OSError):  # if the folder cannot be written, `save_classifier` says so
            path.parent.mkdir(parents=True, exist_ok=True)
            heartbeat_file(path).touch()
        return data.read(rows)

    try:
        found = train_classifier(replace(data, read=read))
        save_classifier(path, *found)
    finally:
        with suppress(OSError):
            heartbeat_file(path).unlink()
    return found


def open_classifier(options: ExtractorOptions = DEFAULT_OPTIONS, /) -> Extractor:
    """Open the classifier of the data; `options.missing` says what to do if it is not trained yet."""
    data = options.data
    if data is None or len(data.classes) < 2:
        has = f"{data.name} has {len(data.classes) or 'none'}" if data else "there is no labelled data"
        raise Refused(f"{NEEDS_CLASSES} {has}: shards build --labels makes some, and random-vgg needs none")
    if data.count < 2 * HELD_OUT:
        raise Refused(f"{NEEDS_CLASSES} {data.name} has only {data.count} pictures: random-vgg needs none")
    device = default_device().type
    key = repr((SCHEMA, *data.key, *data.classes, str(data.count), torch.__version__, device)).encode()
    path = options.cache / "classifiers" / f"{xxhash.xxh3_128_hexdigest(key)}.part"
    found = wait_for_classifier(path) if options.missing == "wait" else load_classifier(path)
    if found is None and options.missing == "leave":
        return Extractor("classifier", "untrained", Classifier(len(data.classes)), options.resize or "clean")
    weights, share = found or train_and_save(path, data)
    # The label has a hash of the weights, because another device or version of torch trains slightly other ones.
    network = build_with_weights(lambda: Classifier(len(data.classes)), weights, path)
    note = f"names {share:.1%} of {-(-data.count // HELD_OUT)} unseen pictures rightly"
    return Extractor("classifier", weights_fingerprint(weights), network, options.resize or "clean", note)
