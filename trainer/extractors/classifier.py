"""A classifier of the data's own labels: its features tell apart what tells the classes apart.

It needs no file, and its classes are those of the data, so that Inception Score and the like mean something there.
Trained once from keyed weights in a keyed order, and kept under a hash of the data. A tenth of the pictures is not
learnt from, to say how good it is. Who learns it touches a file beside it, so that others know how long to wait.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from shards.dataset.order import permute
from trainer.core.fields import Refused
from trainer.extractors.base import USUAL, Extractor, Labelled, Network, Options, Outputs, exact, usual_device
from trainer.extractors.resize import Images, clean
from trainer.extractors.weights import Weights, drawn, filled, fingerprint

SCHEMA = "1"  # of all that decides what is learnt: another one, another classifier
WIDTHS = (32, 64, 128)
GROUPS = 8
BATCH = 64
EPOCHS = 10
MOST = 60_000  # pictures that it sees in all
RATE = 2e-3
PATIENCE_S = 120.0  # without a sign of life from who learns it; file systems of many nodes show one a minute late
UNSEEN = 10  # one picture of so many is not learnt from
LEARNING = "the extractor classifier learns the classes of the data, and"

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
    """A small residual network, whose norms couple no pictures.

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


def batches(count: int, seen: int) -> Iterator[Places]:
    """Yield the numbers of pictures that are learnt from, `seen` in all: each once an epoch, in a keyed order."""
    for start in range(0, seen, BATCH):
        at = np.arange(start, start + BATCH)
        orders = [permute(at[at // count == e] % count, count, "classifier", int(e)) for e in np.unique(at // count)]
        yield np.concatenate(orders).astype(np.int64)


def learnt(data: Labelled) -> tuple[Weights, float]:
    """Train a classifier.

    Returns:
        Its weights, and the share of the unseen pictures that it names rightly.
    """
    shuffled = permute(np.arange(data.count), data.count, "classifier split").astype(np.int64)
    unseen, seen = np.split(shuffled, [-(-data.count // UNSEEN)])
    device, classes = usual_device(), len(data.classes)
    weights = drawn(lambda: Classifier(classes), "classifier")
    network = filled(lambda: Classifier(classes), weights, "classifier").to(device)
    steps = max(1, min(EPOCHS * len(seen), MOST) // BATCH)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    with exact(device), torch.enable_grad():
        for rows in batches(len(seen), steps * BATCH):
            pictures, labels = data.read(seen[rows])
            logits = network(clean(pictures, network.size).to(device))[1]
            loss = cross_entropy(logits, torch.from_numpy(labels).to(device), ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cosine.step()
    found = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return found, accuracy(Extractor("classifier", "", network, "clean"), data, unseen)


def accuracy(extractor: Extractor, data: Labelled, rows: Places) -> float:
    """Return the share of pictures that have a class whose most probable class is theirs."""
    right = total = 0
    for start in range(0, len(rows), 256):
        pictures, labels = data.read(rows[start : start + 256])
        told = extractor(pictures).probabilities
        assert told is not None
        right += int((told.argmax(1) == labels).sum())
        total += int((labels >= 0).sum())
    return right / max(1, total)


def kept(path: Path) -> tuple[Weights, float] | None:
    """Return what was learnt before; None: it is not there, or damaged."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    if raw[:16] != xxhash.xxh3_128_digest(raw[16:]):
        return None
    weights = load(raw[16:])
    return weights, float(weights.pop("accuracy"))


def keep(path: Path, weights: Weights, share: float) -> None:
    """Write what was learnt so that it is whole or not there.

    Raises:
        Refused: it cannot be written.
    """
    raw = save(weights | {"accuracy": torch.tensor(share, dtype=torch.float64)})
    temporary = path.with_suffix(f".{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(xxhash.xxh3_128_digest(raw) + raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise Refused(f"the classifier cannot be kept in {path.parent}: {error.strerror}; name a --cache") from error


def life(path: Path) -> Path:
    """Return the file that is touched while the classifier that will be at `path` is being learnt."""
    return path.with_suffix(".learning")


def awaited(path: Path) -> tuple[Weights, float] | None:
    """Wait for what another process learns; None: it has given no sign of life for long."""
    last, since = None, time.monotonic()
    while (found := kept(path)) is None and time.monotonic() - since <= PATIENCE_S:
        with suppress(FileNotFoundError):
            if (sign := life(path).stat().st_mtime_ns) != last:  # by the clock of the file system, not by ours
                last, since = sign, time.monotonic()
        time.sleep(1)
    return found


def learnt_and_kept(path: Path, data: Labelled) -> tuple[Weights, float]:
    """Train a classifier, show that it is being trained, and keep it.

    Raises:
        Refused: it cannot be kept.
    """

    def read(rows: Places) -> tuple[Images, Places]:
        with suppress(OSError):  # if it matters, `keep` says so
            path.parent.mkdir(parents=True, exist_ok=True)
            life(path).touch()
        return data.read(rows)

    try:
        found = learnt(replace(data, read=read))
        keep(path, *found)
    finally:
        with suppress(OSError):
            life(path).unlink()
    return found


def open_classifier(options: Options = USUAL, /) -> Extractor:
    """Open the classifier of the data; if it is not there yet, `options.missing` says what is done."""
    data = options.data
    if data is None or len(data.classes) < 2:
        has = f"{data.name} has {len(data.classes) or 'none'}" if data else "there is no labelled data"
        raise Refused(f"{LEARNING} {has}: shards build --labels makes some, and random-vgg needs none")
    if data.count < 2 * UNSEEN:
        raise Refused(f"{LEARNING} {data.name} has only {data.count} pictures: random-vgg needs none")
    device = usual_device().type
    key = repr((SCHEMA, *data.key, *data.classes, str(data.count), torch.__version__, device)).encode()
    path = options.cache / "classifiers" / f"{xxhash.xxh3_128_hexdigest(key)}.part"
    found = awaited(path) if options.missing == "wait" else kept(path)
    if found is None and options.missing == "leave":
        return Extractor("classifier", "not-learnt", Classifier(len(data.classes)), options.resize or "clean")
    weights, share = found or learnt_and_kept(path, data)
    network = filled(lambda: Classifier(len(data.classes)), weights, path)
    note = f"names {share:.1%} of {-(-data.count // UNSEEN)} unseen pictures rightly"
    return Extractor("classifier", fingerprint(weights), network, options.resize or "clean", note)
