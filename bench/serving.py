"""Answers of `trainer serve` in milliseconds, over HTTP on this machine: `python -m bench.serving`.

The weights are those of one update: the time does not depend on them. Each picture that is new has a seed of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from statistics import quantiles

import numpy as np
import psutil
import tyro
from PIL import Image

from bench.measure import machine, run_module, seconds, spread, table

TARGET_MS = 100


@dataclass(frozen=True)
class Bench:
    """Measure a server."""

    recipe: str = "dcgan-64"
    size: int = 64
    requests: int = 60
    """In a row, of each kind."""
    clients: int = 8
    """That ask at once, where several do."""
    turns: int = 3


def make_run(folder: Path, bench: Bench) -> Path:
    """Return a run of one update."""
    (folder / "pictures").mkdir()
    for i in range(64):
        pixels = np.random.default_rng(i).integers(0, 256, (bench.size, bench.size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{i}.png")
    shards, run = str(folder / "shards"), folder / "run"
    run_module("shards", "build", str(folder / "pictures"), "--out", shards, "--size", str(bench.size))
    batch = ("--batch-size", "16", "--micro-batch-size", "16", "--total-images", "16", "--tracking.mode", "disabled")
    run_module("trainer", "train", bench.recipe, "--data", shards, "--run", str(run), *batch)
    return run


@contextmanager
def serve(run: Path) -> Iterator[tuple[int, int]]:
    """Serve a run while the context lasts: its port, and the process."""
    command = [sys.executable, "-m", "trainer", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            said = process.stdout.readline()
            yield int(said.partition("http://")[2].partition("/")[0].rpartition(":")[2]), process.pid
        finally:
            process.terminate()


class Client:
    """Asks over one connection, as a browser does."""

    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str, etag: str | None = None) -> str:
        """Ask, read the answer and return its ETag."""
        self.connection.request("GET", path, headers={"If-None-Match": etag} if etag else {})
        answer = self.connection.getresponse()
        answer.read()
        if answer.status not in (200, 304):
            raise SystemExit(f"{path}: {answer.status}")
        return answer.getheader("etag") or ""


def milliseconds(times: list[float]) -> list[float]:
    """Return the median and the 95th percentile of times in seconds."""
    cuts = quantiles(times, n=20)
    return [1000 * cuts[9], 1000 * cuts[18]]


def in_a_row(bench: Bench, act: Callable[[], object]) -> list[float]:
    """Return the median and the 95th percentile of one client's requests."""
    return milliseconds([seconds(act) for _ in range(bench.requests)])


def at_once(bench: Bench, port: int, path: Callable[[], str]) -> tuple[list[float], float]:
    """Let clients ask at once: the median and 95th percentile, and answers per second."""
    times: list[float] = []

    def work() -> None:
        client = Client(port)
        for _ in range(max(1, bench.requests // bench.clients)):
            times.append(seconds(partial(client.ask, path())))

    def all_of_them() -> None:
        threads = [threading.Thread(target=work) for _ in range(bench.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    taken = seconds(all_of_them)
    return milliseconds(times), len(times) / taken


def measure(bench: Bench, port: int, process: int) -> None:
    """Ask in all ways, and print what it took."""
    client, fresh = Client(port), count()
    etag = client.ask("/generate?seed=999999")

    def new() -> str:
        return f"/generate?seed={next(fresh)}"

    ways: dict[str, Callable[[], object]] = {
        "a new picture": lambda: client.ask(new()),
        "a new wall of 2 x 2": lambda: client.ask(f"/wall?columns=2&rows=2&dy=0.5&seed={next(fresh)}"),
        "a picture that was asked for before": lambda: client.ask("/generate?seed=999999"),
        "a picture that the browser has (304)": lambda: client.ask("/generate?seed=999999", etag),
    }
    found = {name: [in_a_row(bench, act) for _ in range(bench.turns)] for name, act in ways.items()}
    rows = [(name, *(spread([one[k] for one in times], 1) for k in (0, 1)), "") for name, times in found.items()]
    several = [at_once(bench, port, new) for _ in range(bench.turns)]
    columns = [spread([times[k] for times, _ in several], 1) for k in (0, 1)]
    rate = spread([rate for _, rate in several], 1)
    rows.append((f"new pictures, {bench.clients} clients at once", *columns, rate))
    print(f"{bench.recipe}, {bench.requests} requests a turn, {bench.turns} turns\n")
    table(("answer", "ms, median", "ms, 95 % are below", "per second"), rows)
    slowest = max(times[1] for times in found["a new picture"])
    met = "met" if slowest <= TARGET_MS else "not met"
    memory = psutil.Process(process).memory_info().rss / 1e6
    table(("target", ""), [(f"a new picture within {TARGET_MS} ms", f"95 % within {slowest:.0f} ms: **{met}**")])
    print(f"memory at the end: {memory:.0f} MB")


def main(args: Bench) -> None:
    print(f"{machine()}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder, serve(make_run(Path(folder), args)) as (port, process):
        measure(args, port, process)


if __name__ == "__main__":
    main(tyro.cli(Bench))
