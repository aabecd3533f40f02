"""Whole training on two cores beside what bounds it: `python -m bench.training`.

Whole: the command `python -m trainer train` with everything in it: loading, exact reduction, EMA, logging, checkpoints,
sample grids. Beside it two independent processes, each with half of the batch, which have nothing to reduce; and the
reference step of pytorch/examples with a thread a core, which neither loads nor saves anything.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

import torch
import tyro

from bench.measure import has_bf16, machine, ratios, seconds, spread, table, take_turns
from bench.step import make_batches, reference
from shards.building.build import run_build
from shards.building.options import Build
from trainer.config.recipes import recipe_config
from trainer.runs import journal
from trainer.runs.run_folder import RunFolder

CORES = 2
TOGETHER, APART, REFERENCE = "together", "apart", "reference"
NAMES = {
    TOGETHER: "`trainer train --processes 2`, exact reduction",
    APART: "two of `trainer train --processes 1`, half of the batch each, beside one another",
    REFERENCE: "step of pytorch/examples dcgan: fp32, 2 threads, no loading",
}


@dataclass(frozen=True)
class Bench:
    """Measure whole training."""

    recipe: str = "dcgan-64"
    steps: int = 40
    turns: int = 3
    source: Path = Path("examples/clipart.zip")


class Candidates:
    """Each call trains anew and returns pictures per second."""

    def __init__(self, args: Bench, folder: Path) -> None:
        self.args, self.folder, self.numbers = args, folder, count()
        self.config = recipe_config(args.recipe)

    def start(self, processes: int, batch_size: int) -> tuple[RunFolder, subprocess.Popen[bytes]]:
        """Start one run; it checkpoints and paints once on the way, and logs every other step."""
        run = RunFolder(self.folder / f"run-{next(self.numbers)}")
        images = batch_size * self.args.steps
        command = [sys.executable, "-m", "trainer", "train", self.args.recipe, "--run", str(run.path)]
        settings = {
            "data": self.folder / "shards",
            "processes": processes,
            "batch-size": batch_size,
            "total-images": images,
            "checkpoint-every-images": images // 2,
            "sample-every-images": images // 2,
            "log-every-images": 2 * batch_size,
            "tracking.mode": "disabled",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        return run, subprocess.Popen([*command, *options], stderr=subprocess.PIPE)

    def speed(self, processes: int, batch_size: int, copies: int) -> float:
        """Return the pictures per second of some equal runs beside one another, by the median interval of each."""
        runs = [self.start(processes, batch_size) for _ in range(copies)]
        for _, process in runs:
            _, said = process.communicate()
            if process.returncode:
                raise SystemExit(said.decode())
        rows = [
            [row["images_per_s"] for row in journal.read_rows(run.system) if "images_per_s" in row] for run, _ in runs
        ]
        return float(sum(median(speeds) for speeds in rows))

    def reference(self) -> float:
        """Return the pictures per second of the reference step."""
        torch.set_num_threads(CORES)
        step = reference(self.config, make_batches(self.config))
        step()
        return self.config.batch_size / median(seconds(step) for _ in range(max(2, self.args.steps // 8)))


def measure(args: Bench, folder: Path) -> None:
    """Build the shards, take turns and print the table."""
    ways = Candidates(args, folder)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run_build(
            Build(args.source, folder / "shards", size=(str(ways.config.network.size),), encode="raw", holdout=0.0)
        )
    batch = ways.config.batch_size
    candidates: dict[str, Callable[[], float]] = {
        TOGETHER: partial(ways.speed, CORES, batch, 1),
        APART: partial(ways.speed, 1, batch // CORES, CORES),
        REFERENCE: ways.reference,
    }
    speeds = take_turns(candidates, args.turns)
    title = f"{args.recipe}, {'bf16' if has_bf16() else 'fp32'}, batch {batch}, {args.steps} steps, {args.turns} turns"
    rows = []
    for name, what in NAMES.items():
        beside = [spread(ratios(speeds[name], speeds[other])) for other in (APART, REFERENCE)]
        rows.append([what, spread(speeds[name], 1), *beside])
    table([title, "images/s", "× two apart", "× reference"], rows)


def main(args: Bench) -> None:
    print(f"{machine()}; {CORES} processes with 1 thread\n")
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


if __name__ == "__main__":
    main(tyro.cli(Bench))
