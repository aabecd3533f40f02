"""Loading at 256 px on all cores: the whole stream beside webdataset, litdata and decoding alone.

`python -m bench.loading_256`. All read the same pictures in the same encoding, JPEG or lossless WebP, in batches of 32,
with as many workers as there are cores: ours threads, the peers' DataLoader processes. Ours are micro-batches as the
trainer prepares them: in planned order, each sample's hash checked, with the draws of DCGAN. Speeds are those of a
stream that flows: batches are counted after as many as are made ahead. Beside the limit ours is compared by CPU time,
too, which a busy machine changes less.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
import webdataset

from bench.loading import damaged, to_floats
from bench.measure import machine, ratios, spread, table, take_turns
from bench.sharding import make_pictures
from shards.building.build import run_build
from shards.building.options import Build
from shards.dataset.index import Index
from shards.dataset.stream import PREFETCH, Reader, stream_planned
from shards.images.encode import ENCODINGS
from trainer.config.recipes import recipe_config
from trainer.core.randomness import Draws
from trainer.distributed.world import World
from trainer.gan.batches import BatchLoader, RandomInputs

SIDE = 256
BATCH = 32
SHARD_SAMPLES = 32  # so that each of webdataset's workers has some
OURS, FLOATS, PEER, BYTES, LITDATA, LIMIT = "ours", "floats", "webdataset", "webdataset, bytes", "litdata", "limit"
NAMES = {
    OURS: "our whole stream: micro-batches prepared for the device, bytes",
    FLOATS: "the same, made floats on the CPU by the main thread",
    PEER: "webdataset, standard pipeline: decode('pil'), floats, batched, DataLoader workers",
    BYTES: "webdataset, bytes: decode('rgb8'), batched, DataLoader workers",
    LITDATA: "litdata: Pillow, bytes, StreamingDataLoader workers",
    LIMIT: "the limit: decode of the same bytes in memory, on all cores",
}
PYTHON = Path(".bench-venv/bin/python")
SCRIPT = Path("bench/litdata_peer.py")


@dataclass(frozen=True)
class Bench:
    """Measure loading at 256 px."""

    source: Path = Path("examples/clipart.zip")
    natural: int = 0
    """In place of those: make so many pictures with the spectrum of natural ones first."""
    encodings: tuple[Literal["jpg", "webp"], ...] = ("jpg", "webp")
    batches: int = 40
    """Of a turn."""
    turns: int = 7


def cores() -> int:
    """Return how many cores there are, and so how many workers of each."""
    return len(os.sched_getaffinity(0))


def speed(batches: Iterator[object], number: int, cpu: list[float]) -> float:
    """Return samples a second, after so many batches as may be there already, and note those a second of CPU time."""
    for _ in islice(batches, (PREFETCH + 1) * cores()):
        pass
    began, cpu_began = time.perf_counter(), time.process_time()
    for _ in islice(batches, number):
        pass
    cpu.append(number * BATCH / (time.process_time() - cpu_began))
    return number * BATCH / (time.perf_counter() - began)


def ours(folder: Path, floats: bool) -> Iterator[object]:
    """Yield micro-batches of our stream without end."""
    config = replace(recipe_config("dcgan-64"), batch_size=BATCH, micro_batch_size=BATCH, workers=cores())
    config = replace(config, network=replace(config.network, size=SIDE))
    loader = BatchLoader(config, World(), torch.device("cpu"), Reader(Index.open(folder), "train", damaged), folder)
    if floats:
        yield from loader.steps(config, 0, Draws(0, 0))
    make = partial(loader.prepare, RandomInputs(config), Draws(0, 0))
    yield from stream_planned(make, loader.plan(0), loader.workers)


def peer(shards: list[str], extension: str, floats: bool) -> Iterator[object]:
    """Yield batches of webdataset's pipeline without end."""
    pipeline = webdataset.WebDataset(shards, resampled=True).decode("pil" if floats else "rgb8")
    pipeline = pipeline.to_tuple(extension, "json").map_tuple(to_floats if floats else None, label_of)
    yield from webdataset.WebLoader(pipeline.batched(BATCH, partial=False), batch_size=None, num_workers=cores())


def label_of(facts: dict[str, object]) -> int:
    """Return that there is no class."""
    return -1


def alone(files: list[bytes], decode: Callable[[bytes, np.ndarray], None], batches: int, cpu: list[float]) -> float:
    """Return samples a second of decoding into one array for each core, and note those a second of CPU time."""
    outs = np.empty((cores(), BATCH, SIDE, SIDE, 3), dtype=np.uint8)

    def one(worker: int) -> None:
        for k in range(batches // cores()):
            for i, out in enumerate(outs[worker]):
                decode(files[(k * BATCH + i) % len(files)], out)

    with ThreadPoolExecutor(cores()) as threads:
        began, cpu_began, number = time.perf_counter(), time.process_time(), batches // cores() * cores() * BATCH
        list(threads.map(one, range(cores())))
        cpu.append(number / (time.process_time() - cpu_began))
        return number / (time.perf_counter() - began)


def litdata(folder: Path, batches: int) -> float:
    """Return samples a second of litdata."""
    numbers = map(str, (cores(), BATCH, (PREFETCH + 1) * cores(), batches))
    command: list[str | Path] = [PYTHON, SCRIPT, str(folder), "read", *numbers]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def members(folder: Path, extension: str) -> dict[str, bytes]:
    """Return the bytes of all training pictures, by name."""
    index, found = Index.open(folder), {}
    for shard in index.splits["train"].shards:
        with tarfile.open(index.folder / shard.name) as tar:
            for member in tar:
                if member.name.endswith(extension):
                    found[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]  # a file
    return found


def make_litdata(folder: Path, files: dict[str, bytes]) -> bool:
    """Write litdata's dataset, and tell whether litdata is here."""
    if not PYTHON.exists():
        return False
    (folder / "files").mkdir(parents=True)
    for name, data in files.items():
        (folder / "files" / name).write_bytes(data)
    paths = [str(folder / "files" / name) for name in files]
    done = subprocess.run([PYTHON, SCRIPT, str(folder / "made"), "make", *paths], capture_output=True, check=False)
    return done.returncode == 0


def measure(args: Bench, encoding: Literal["jpg", "webp"], folder: Path) -> None:
    """Build the shards, take turns and print the table of an encoding."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run_build(
            Build(args.source, folder, size=(str(SIDE),), encode=encoding, shard_samples=SHARD_SAMPLES, holdout=0.0)
        )
    made, files = ENCODINGS[encoding], members(folder, ENCODINGS[encoding].extension)
    shards = sorted(str(path) for path in folder.rglob("*.tar"))
    cpu: dict[str, list[float]] = {name: [] for name in NAMES}
    candidates: dict[str, Callable[[], float]] = {
        OURS: lambda: speed(ours(folder, False), args.batches, cpu[OURS]),
        FLOATS: lambda: speed(ours(folder, True), args.batches, cpu[FLOATS]),
        PEER: lambda: speed(peer(shards, made.extension, True), args.batches, []),
        BYTES: lambda: speed(peer(shards, made.extension, False), args.batches, []),
        LIMIT: lambda: alone([*files.values()], made.decode, args.batches, cpu[LIMIT]),
    }
    if make_litdata(folder / "litdata", files):
        candidates[LITDATA] = lambda: litdata(folder / "litdata" / "made", args.batches)
    else:
        print("litdata is not here: not measured (make bench installs it)\n")
    take_turns(candidates, 1)
    speeds = take_turns(candidates, args.turns)
    rows = []
    for name, what in NAMES.items():
        if name in speeds:
            beside = [spread(ratios(speeds[name], speeds[other])) for other in (PEER, LIMIT)]
            by_cpu = spread(ratios(cpu[name], cpu[LIMIT])) if cpu[name] else ""
            rows.append([what, spread(speeds[name], 0), f"{np.median(speeds[name]) / cores():,.0f}", *beside, by_cpu])
    title = f"{SIDE} px, {encoding}, {len(files)} pictures, {args.turns} turns"
    table([title, "samples/s", "samples/s a core", "× webdataset", "× the limit", "the same by CPU time"], rows)


def main(args: Bench) -> None:
    torch.set_num_threads(1)
    print(f"{machine()}; {cores()} workers of each\n")
    with tempfile.TemporaryDirectory() as folder:
        if args.natural:
            args = replace(args, source=Path(folder) / "natural")
            args.source.mkdir()
            make_pictures(args.source, args.natural)
        for encoding in args.encodings:
            measure(args, encoding, Path(folder) / encoding)


if __name__ == "__main__":
    main(tyro.cli(Bench))
