"""What metrics cost, beside scipy's root of a matrix and the authors' package prdc: `python -m bench.metrics`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import tyro
from scipy.linalg import sqrtm

from bench.measure import machine, ratios, seconds, spread, table, take_turns
from trainer.core.randomness import normal, philox
from trainer.metrics import METRICS, frechet_distance, kernel_distance, prdc
from trainer.metrics.base import Features, Sample
from trainer.metrics.frechet import Gaussian
from trainer.metrics.moments import Moments

PEER = Path(".bench-venv/bin/python")
OURS: dict[str, Callable[[Features, Features], object]] = {
    "FID": frechet_distance,
    "KID": kernel_distance,
    "PRDC": prdc,
}


@dataclass(frozen=True)
class Bench:
    """Measure the metrics of features."""

    n: int = 50_000
    """Pictures of each side."""
    d: int = 2048
    peer_n: int = 5_000
    """Pictures of each side for the peer, which holds three n × n matrices: 60 GB at 50,000."""
    turns: int = 3
    only: str | None = None
    """Measure this one alone, and print its seconds and its peak of memory; used by the benchmark itself."""
    intervals: bool = False
    """With `only`: measure the estimate with its interval."""


def features(name: str, n: int, d: int) -> Features:
    """Draw features whose spread falls off over the dimensions, as that of real ones does."""
    scale = np.arange(1, d + 1, dtype=np.float32) ** -0.5
    drawn: Features = normal(philox("bench metrics", name), n, d).numpy()
    drawn *= scale
    return drawn


def trace_terms(args: Bench) -> None:
    """Compare the distance between Gaussians, from their moments."""
    a, b = (Moments.of(features(name, 2 * args.d, args.d)) for name in ("real", "fake"))

    def root() -> float:
        """Follow the published scripts: the root of the product."""
        common = sqrtm(a.covariance @ b.covariance).real
        traces = np.trace(a.covariance + b.covariance - 2 * common)
        return float(np.square(a.mean - b.mean).sum() + traces)

    def ours() -> float:
        return Gaussian.with_moments(a).distance(Gaussian.with_moments(b))

    ways: dict[str, Callable[[], float]] = {"`Gaussian.distance`": ours, "`scipy.linalg.sqrtm(S₁S₂)`": root}
    times = take_turns({name: partial(seconds, way) for name, way in ways.items()}, args.turns)
    base = times["`scipy.linalg.sqrtm(S₁S₂)`"]
    rows = [
        [name, spread(times[name]), spread(ratios(times[name], base)), f"{way():.10f}"] for name, way in ways.items()
    ]
    table([f"FID from moments, d = {args.d:,}, {args.turns} turns", "s", "÷ scipy", "value"], rows)


def alone(args: Bench) -> None:
    """Measure one metric in this process, and print seconds and the peak beyond what the features take."""
    real, fake = (features(name, args.n, args.d) for name in ("real", "fake"))
    before = peak()
    started = time.perf_counter()
    if args.intervals:
        METRICS[str(args.only).lower()](Sample(real), Sample(fake))
    else:
        OURS[str(args.only)](real, fake)
    print(time.perf_counter() - started, peak() - before)


def peak() -> float:
    """Return the most memory that this process has held, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def run(command: list[str]) -> list[float]:
    """Run a process that prints its seconds and its megabytes."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [float(word) for word in done.stdout.split()]


def measured(args: Bench, n: int, name: str, intervals: bool) -> list[float]:
    """Measure one metric of ours in a process of its own."""
    command = [sys.executable, "-m", "bench.metrics", "--only", name, "--n", str(n), "--d", str(args.d)]
    return run([*command, "--intervals"] if intervals else command)


def at_full_size(args: Bench) -> None:
    """Print what each metric takes."""

    def rows() -> list[list[str]]:
        return [
            [name + (" with its interval" if intervals else ""), f"{s:,.1f}", f"{mb:,.0f}"]
            for name in OURS
            for intervals in (False, True)
            for s, mb in [measured(args, args.n, name, intervals)]
        ]

    table([f"{args.n:,} × {args.d:,} on each side", "s", "MB beside the features"], rows())


def beside_peer(args: Bench) -> None:
    """Compare with the package prdc, where it is installed: figures must be equal."""
    if not PEER.exists():
        print(f"{PEER} is missing (make bench makes it): the package prdc was not measured\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.npy") for name in ("real", "fake")]
        for path in paths:
            np.save(path, features(path.stem, args.peer_n, args.d))
        peers, ours = [], []
        for _ in range(args.turns):
            peers.append(run([str(PEER), "bench/prdc_peer.py", *map(str, paths)]))
            ours.append(measured(args, args.peer_n, "PRDC", False))
        found = prdc(*(np.load(path) for path in paths))
    same = np.array_equal(peers[0][2:], list(found.values()))
    base = [run[0] for run in peers]
    rows = []
    for name, runs in (("`trainer.metrics.prdc`", ours), ("`prdc.compute_prdc` 0.2", peers)):
        times = [run[0] for run in runs]
        rows.append([name, spread(times, 1), spread(ratios(times, base)), f"{median(run[1] for run in runs):,.0f}"])
    header = [f"PRDC, {args.peer_n:,} × {args.d:,}, {args.turns} turns", "s", "÷ peer", "MB beside the features"]
    table(header, rows)
    print(f"Figures: {'the same' if same else f'{found} against {peers[0][2:]}'}\n")


def main(args: Bench) -> None:
    if args.only:
        alone(args)
        return
    print(f"{machine()}\n")
    trace_terms(args)
    beside_peer(args)
    at_full_size(args)


if __name__ == "__main__":
    main(tyro.cli(Bench))
