"""Opening, planning and seeking in a billion samples, on a local disk and in a bucket: `python -m bench.scale`.

100,000 shards of 10,000 samples; the table has 40 GB, nearly all of it a hole in the file. Each line is a process of
its own, that of one of 1,024 ranks, which begins in the middle of the third epoch. Targets: 0.1 s, and 50 MB beyond the
table.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from bench.measure import machine, table
from shards.dataset.cache_settings import CacheSettings
from shards.dataset.index import SCHEMA, Index
from shards.dataset.order import Order
from shards.dataset.stream import Reader
from shards.dataset.table import ROW
from shards.storage.place import parse_place
from tests.s3_server import serve_bucket

SHARD_SAMPLES = 10_000
RANKS, BATCH, WINDOW = 1024, 32, 16


@dataclass(frozen=True)
class Bench:
    """Measure what a rank does before its first batch."""

    shards: int = 100_000
    """Of 10,000 samples each."""
    rank: tuple[str, int] | None = None
    """Print what this rank takes with the data at this place; for the benchmark."""


def write_dataset(folder: Path, shards: int) -> None:
    """Write an index and a table without samples."""
    samples = shards * SHARD_SAMPLES
    columns = {
        "samples": [SHARD_SAMPLES] * shards,
        "bytes": [200_000_000] * shards,
        "sha256": [hashlib.sha256(str(shard).encode()).hexdigest() for shard in range(shards)],
    }
    none: dict[str, list[object]] = {name: [] for name in columns}
    splits = {"train": {"samples": samples, "shards": columns}, "holdout": {"samples": 0, "shards": none}}
    content = {
        "schema": SCHEMA,
        "settings": {"height": 64, "width": 64, "channels": 3, "encode": "jpg"},
        "classes": [],
        "splits": splits,
    }
    (folder / "index.json").write_text(json.dumps(content | {"table_sha256": "0" * 64}))
    with (folder / "table.npy").open("wb") as file:
        described = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (samples,)}
        np.lib.format.write_array_header_1_0(file, described)
        file.truncate(file.tell() + samples * ROW.itemsize)


def memory_mb() -> float:
    """Return this process's memory, without mapped files."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def measure(place: str, rank: int) -> None:
    """Print the seconds of each step up to the rows of a rank's first batch, of all, and the megabytes."""
    before, times = memory_mb(), [time.perf_counter()]
    index = Index.open(parse_place(place), CacheSettings(Path(tempfile.gettempdir()) / "none", 0.001))
    times.append(time.perf_counter())
    reader = Reader(index, "train", lambda sample, what: None)
    times.append(time.perf_counter())
    order = Order(reader.split.shard_samples, 0, WINDOW)
    first = order.samples * 5 // 2 + rank * BATCH
    samples = order(np.arange(first, first + BATCH))
    times.append(time.perf_counter())
    reader.locate(samples)
    times.append(time.perf_counter())
    print(json.dumps([*np.diff(times), times[-1] - times[0], memory_mb() - before]))


def main(args: Bench) -> None:
    if args.rank:
        measure(*args.rank)
        return
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as folder, serve_bucket(Path(folder) / "buckets", etags="") as bucket:
        write_dataset(bucket.root, args.shards)
        rows = []
        for name, place in (("local", str(bucket.root)), ("s3:// on loopback", bucket.url)):
            for rank in (0, 511, RANKS - 1):
                command = [sys.executable, "-m", "bench.scale", "--rank", place, str(rank)]
                environment = os.environ | bucket.environment
                done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
                *seconds, total, megabytes = json.loads(done.stdout)
                rows.append(
                    [name, str(rank), *(f"{s:.3f}" for s in seconds), f"**{total:.3f}**", f"**{megabytes:.0f}**"]
                )
        steps = "open, s", "reader, s", "plan, s", "rows, s", "all, s"
        table([f"{args.shards * SHARD_SAMPLES:,} samples", "rank", *steps, "MB"], rows)


if __name__ == "__main__":
    main(tyro.cli(Bench))
