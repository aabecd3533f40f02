"""Streaming from a bucket over a slow link, beside webdataset and litdata: `python -m bench.streaming`.

A real S3 server on loopback, behind a proxy of 1 Gb/s and 20 ms a request. All read the same JPEGs of 256 px in whole
epochs, decode them, and make batches of bytes with as many workers: ours in threads, webdataset (`pipe:curl`) and
litdata in processes. Ours does it with an empty cache, then with the cache that the first epoch has left. Limits are
the link, and decoding alone in as many threads. Each line is a process of its own; the proxy takes a part of the cores
from all.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import tyro
import webdataset
from PIL import Image, ImageFilter

from bench.loading_256 import PYTHON, SCRIPT, make_litdata, members
from bench.measure import machine, ratios, spread, table, take_turns
from shards.building.build import run_build
from shards.building.options import Build
from shards.dataset.cache_settings import CacheSettings
from shards.dataset.index import Index
from shards.dataset.order import Order
from shards.dataset.shard_copier import COPIERS
from shards.dataset.stream import Reader, stream_planned
from shards.images.encode import ENCODINGS
from shards.storage.place import parse_place
from shards.storage.storage import open_storage
from tests.s3_server import Bucket, Fault, serve_bucket

SIDE, BATCH, WINDOW = 256, 32, 4
FIRST, SECOND, LOCAL, PEER, LITDATA = "first", "second", "local", "webdataset", "litdata"
DECODING, BOTH = "decoding", "both"
NAMES = {
    FIRST: "ours, first epoch: the cache is empty",
    SECOND: "ours, second epoch: the cache is full",
    LOCAL: "ours, from a local folder",
    PEER: "webdataset, pipe:curl, decode('pil'), batched",
    LITDATA: "litdata: Pillow, StreamingDataLoader workers, first epoch",
    DECODING: "the limit: decoding alone",
    BOTH: "the same while all shards come from the bucket, and are thrown away",
}


@dataclass(frozen=True)
class Bench:
    """Measure streaming."""

    pictures: int = 8_000
    workers: int = 2
    gigabits: float = 1.0
    """Of the link, a second."""
    latency_ms: float = 20.0
    """Of each request."""
    turns: int = 5


def make_pictures(folder: Path, number: int) -> None:
    """Write smoothed noise, which as JPEG has about as many bytes as a painting."""
    folder.mkdir()
    for i in range(number):
        noise = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.2)).save(folder / f"{i:06d}.jpg", quality=85)


def ours(place: str, cache: str, workers: int) -> int:
    """Read one epoch, and return its samples."""
    index = Index.open(parse_place(place), CacheSettings(Path(cache)))
    reader = Reader(index, "train", lambda sample, what: sys.exit(what))
    order = Order(reader.split.shard_samples, 0, WINDOW)

    def plan() -> Iterator[npt.NDArray[np.int64]]:
        for first in range(0, order.samples, BATCH):
            reader.follow(order, first, order.samples)
            samples = order(np.arange(first, min(first + BATCH, order.samples)))
            reader.announce(samples)
            yield samples

    return sum(len(samples.images) for samples in stream_planned(reader, plan(), workers))


def to_bytes(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def peer(shards: list[str], workers: int) -> int:
    """Read one epoch by webdataset, and return its samples."""
    data = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0).shuffle(1000).decode("pil")
    batches = data.to_tuple("jpg").map_tuple(to_bytes).batched(BATCH)
    return sum(len(images) for (images,) in webdataset.WebLoader(batches, batch_size=None, num_workers=workers))


def shard_names(folder: str) -> list[str]:
    """Return the names of the shards in a folder."""
    return sorted(path.name for path in Path(folder).glob("train-*.tar"))


def decoding(folder: str, workers: int, place: str | None = None) -> int:
    """Decode all pictures from memory, while shards are read from a bucket if that is named; return their number."""
    files = []
    for shard in shard_names(folder):
        with tarfile.open(Path(folder, shard)) as tar:
            files += [tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")]  # type: ignore[union-attr]
    decode, out = ENCODINGS["jpg"].decode, np.empty((workers, SIDE, SIDE, 3), dtype=np.uint8)

    def part(worker: int) -> None:
        for file in files[worker::workers]:
            decode(file, out[worker])

    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads, ThreadPoolExecutor(COPIERS) as readers:
        read = readers.map(open_storage(parse_place(place)).read, shard_names(folder)) if place else ()
        list(threads.map(part, range(workers)))
        for _ in read:
            pass
    print(time.perf_counter() - began)
    return len(files)


def run_part(arguments: list[str]) -> None:
    """Be the process of one line: print its seconds, without what Python's start takes."""
    what, workers, *rest = arguments
    torch.set_num_threads(1)
    if what in (DECODING, BOTH):
        decoding(rest[0], int(workers), *rest[1:])
        return
    began = time.perf_counter()
    assert (peer(rest, int(workers)) if what == PEER else ours(rest[0], rest[1], int(workers))) > 0
    print(time.perf_counter() - began)


def litdata(bucket: Bucket, workers: int, cache: Path) -> float:
    """Return the seconds of litdata's first epoch."""
    shutil.rmtree(cache, ignore_errors=True)
    rest = ("epoch", str(workers), str(BATCH), str(cache))
    command = [str(PYTHON), str(SCRIPT), f"{bucket.url}/litdata/made", *rest]
    environment = os.environ | bucket.environment | {"AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=600)
    return float(done.stdout.split()[-1])


def seconds_of(bucket: Bucket, what: str, workers: int, *rest: str) -> float:
    """Return the seconds of one line."""
    command = [sys.executable, "-m", "bench.streaming", "part", what, str(workers), *rest]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=os.environ | bucket.environment, check=True)
    return float(done.stdout.split()[-1])


def measure(args: Bench, bucket: Bucket, folder: Path) -> None:
    """Build the shards, take turns, and print the table."""
    make_pictures(folder / "pictures", args.pictures)
    options = Build(
        (folder / "pictures",), bucket.root / "set", size=(str(SIDE),), encode="jpg", holdout=0.0, shard_samples=200
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run_build(options)
    index = Index.open(bucket.root / "set")
    samples, size = index.splits["train"].samples, sum(shard.bytes for shard in index.splits["train"].shards)
    bucket.proxy.fault = Fault(delay_s=args.latency_ms / 1000, bytes_per_s=args.gigabits * 1e9 / 8)
    address = f"http://127.0.0.1:{bucket.proxy.port}/pictures/set"
    pipes = [f"pipe:curl -s {address}/{shard.name}" for shard in index.splits["train"].shards]
    url, cache = f"{bucket.url}/set", folder / "cache"

    def first() -> float:
        for file in cache.glob("*"):
            file.unlink()
        return seconds_of(bucket, FIRST, args.workers, url, str(cache))

    candidates: dict[str, Callable[[], float]] = {
        FIRST: first,
        SECOND: lambda: first() * 0 + seconds_of(bucket, SECOND, args.workers, url, str(cache)),
        LOCAL: partial(seconds_of, bucket, LOCAL, args.workers, str(bucket.root / "set"), str(cache)),
        PEER: partial(seconds_of, bucket, PEER, args.workers, *pipes),
        DECODING: partial(seconds_of, bucket, DECODING, args.workers, str(bucket.root / "set")),
        BOTH: partial(seconds_of, bucket, BOTH, args.workers, str(bucket.root / "set"), url),
    }
    if make_litdata(bucket.root / "litdata", members(bucket.root / "set", "jpg")):
        candidates[LITDATA] = partial(litdata, bucket, args.workers, folder / "litdata cache")
    else:
        print("litdata is not here: not measured (make bench installs it)\n")
    times = take_turns(candidates, args.turns)
    speeds = {name: [samples / s for s in seconds] for name, seconds in times.items()}
    link = args.gigabits * 1e9 / 8 / (size / samples)
    least = [min(link, speed) for speed in speeds[DECODING]]
    print(f"{samples:,} samples in {len(pipes)} shards, {size / 1e6:.0f} MB; the link carries {link:,.0f} samples/s\n")
    table(
        [f"{SIDE} px, {args.workers} workers, {args.turns} turns", "samples/s", "× webdataset", "× link or decoding"],
        [[what, spread(speeds[n], 0), spread(ratios(speeds[n], speeds[PEER])), spread(ratios(speeds[n], least))]
         for n, what in NAMES.items() if n in speeds],
    )  # fmt: skip


def main(args: Bench) -> None:
    print(f"{machine()}; {args.gigabits:g} Gb/s, {args.latency_ms:g} ms a request\n")
    # Without keys: curl signs nothing.
    with tempfile.TemporaryDirectory() as folder, serve_bucket(Path(folder) / "buckets", keys=False) as bucket:
        measure(args, bucket, Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["part"]:
        run_part(sys.argv[2:])
    else:
        main(tyro.cli(Bench))
