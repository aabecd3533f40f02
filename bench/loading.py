"""Loading beside webdataset's standard pipeline, and beside a gather from memory: `python -m bench.loading`.

All three give batches of 64 pictures of the same dataset, at 64 px, in line (no workers). Ours reads raw shards in
planned order and checks every sample's hash; webdataset reads the PNG shards one after the other. Two conversions are
measured: bytes, as our stream hands them to the device, and floats in [-1, 1].
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import tyro
import webdataset
from PIL import Image
from torch import Tensor

from bench.measure import machine, ratios, spread, table, take_turns
from shards.building.build import run_build
from shards.building.options import Build
from shards.dataset.index import Index
from shards.dataset.order import Order
from shards.dataset.stream import Reader, stream_planned
from shards.images.encode import ENCODINGS
from trainer.gan.batches import normalise

BATCH = 64
SIDE = 64
OURS, FLOATS, PEER, LIMIT = "ours, bytes", "ours, floats", "webdataset", "limit"
JPEG, JPEG_LIMIT = "ours, jpeg", "limit, jpeg"
NAMES = {
    OURS: "our whole stream: open, plan, read, check, batch, labels",
    FLOATS: "the same, made floats as the trainer does",
    PEER: "webdataset, standard pipeline: PNG, decode('pil'), floats, batched",
    LIMIT: "the limit: gather from one memory-mapped array",
    JPEG: "our whole stream, JPEG shards, bytes",
    JPEG_LIMIT: "the limit of JPEG: decode of the same bytes in memory, batched",
}


@dataclass(frozen=True)
class Bench:
    """Measure loading."""

    source: Path = Path("examples/clipart.zip")
    samples: int = 12_800
    """Pictures a turn; the dataset is passed over as often as needed. webdataset reads a quarter of them."""
    turns: int = 9


def damaged(sample: int, message: str) -> None:
    raise AssertionError(message)


def ours(folder: Path, floats: bool) -> Iterator[object]:
    """Yield batches of our stream without end."""
    index = Index.open(folder)
    reader = Reader(index, "train", damaged)
    order = Order([shard.samples for shard in reader.split.shards], seed=0, window=0)
    for samples in stream_planned(reader, (order(np.arange(i, i + BATCH)) for i in count(0, BATCH)), workers=0):
        yield normalise(torch.from_numpy(samples.images)) if floats else samples


def to_floats(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(127.5).sub(1)


def peer(shards: list[str]) -> Iterator[object]:
    """Yield batches of webdataset's pipeline without end."""
    while True:
        pipeline = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil")
        yield from pipeline.to_tuple("png", "json").map_tuple(to_floats, None).batched(BATCH, partial=False)


def limit(pixels: npt.NDArray[np.uint8]) -> Iterator[object]:
    """Yield batches copied out of the map without end, in random order."""
    random = np.random.default_rng(0)
    while True:
        for batch in random.permutation(len(pixels))[: len(pixels) // BATCH * BATCH].reshape(-1, BATCH):
            yield pixels[batch]


def jpeg_limit(files: list[bytes]) -> Iterator[object]:
    """Yield batches decoded from memory without end."""
    decode = ENCODINGS["jpg"].decode
    images = np.empty((BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    for i in count(0, BATCH):
        for j in range(BATCH):
            decode(files[(i + j) % len(files)], images[j])
        yield images


def samples_per_second(start: Callable[[], Iterator[object]], batches: int) -> float:
    """Return the speed of the first batches, opening included."""
    started = time.perf_counter()
    for _ in islice(start(), batches):
        pass
    return batches * BATCH / (time.perf_counter() - started)


def members(folder: Path) -> list[bytes]:
    """Return the bytes of all training pictures."""
    index = Index.open(folder)
    found = []
    for shard in index.splits["train"].shards:
        with tarfile.open(index.folder / shard.name) as tar:
            found += [tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")]  # type: ignore[union-attr]
    return found


def decoded(folder: Path, out: Path) -> npt.NDArray[np.uint8]:
    """Write all training pictures as one array, and map it into memory."""
    reader = Reader(Index.open(folder), "train", damaged)
    np.save(out, reader(np.arange(reader.split.samples)).images)
    pixels: npt.NDArray[np.uint8] = np.load(out, mmap_mode="r")
    return pixels


def measure(args: Bench, folder: Path) -> None:
    """Build the shards, take turns and print the table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for encode in ("raw", "png", "jpg"):
            run_build(Build(args.source, folder / encode, size=(str(SIDE),), encode=encode, holdout=0.0))
    pixels = decoded(folder / "raw", folder / "all.npy")
    shards = sorted(str(path) for path in (folder / "png").rglob("*.tar"))
    starts: dict[str, Callable[[], Iterator[object]]] = {
        OURS: partial(ours, folder / "raw", False),
        FLOATS: partial(ours, folder / "raw", True),
        PEER: partial(peer, shards),
        LIMIT: partial(limit, pixels),
        JPEG: partial(ours, folder / "jpg", False),
        JPEG_LIMIT: partial(jpeg_limit, members(folder / "jpg")),
    }
    batches = {name: max(1, args.samples // BATCH // (4 if name == PEER else 1)) for name in starts}
    candidates = {name: partial(samples_per_second, start, batches[name]) for name, start in starts.items()}
    take_turns(candidates, 1)
    speeds = take_turns(candidates, args.turns)
    columns = ["samples/s", "× webdataset", "× its limit"]
    table(
        [f"64 px, {len(pixels)} pictures, {args.turns} turns", *columns],
        [
            [
                what,
                spread(speeds[n], 0),
                spread(ratios(speeds[n], speeds[PEER])),
                spread(ratios(speeds[n], speeds[JPEG_LIMIT if n in (JPEG, JPEG_LIMIT) else LIMIT])),
            ]
            for n, what in NAMES.items()
        ],
    )


def main(args: Bench) -> None:
    torch.set_num_threads(1)
    print(f"{machine()}; 1 thread\n")
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


if __name__ == "__main__":
    main(tyro.cli(Bench))
