"""Evaluation in pictures per second, beside the bare forward pass of its extractor: `python -m bench.evaluation`.

Whole: the command `python -m trainer evaluate`, with imports, painting, reading of shards, filters, metrics, intervals
and floors; and what each picture costs, from the difference between many and few pictures. Bare: the network of the
extractor on tensors that lie in memory in its own size, in as many processes with one thread each.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from safetensors.torch import save_file

from bench.measure import machine, ratios, run_module, seconds, spread, table, take_turns
from shards.building.build import run_build
from shards.building.options import Build
from trainer.extractors import EXTRACTORS, ExtractorOptions
from trainer.extractors.base import BATCH
from trainer.extractors.dinov2 import DinoV2
from trainer.extractors.weights import random_weights

SIDES = 3  # sets of pictures that are looked at: the fakes, the reals, and as many reals for the floor


@dataclass(frozen=True)
class Bench:
    """Measure evaluations."""

    extractor: str = "random-vgg"
    num_samples: int = 2_048
    """Pictures of each side; three times as many pass the extractor."""
    few: int = 256
    """Pictures of each side where the cost of a start is measured."""
    processes: int = 2
    turns: int = 3
    source: Path = Path("/usr/share/openclipart/png")
    recipe: str = "dcgan-64"
    passes: tuple[int, Path | None] | None = None
    """Pass so many batches through the bare network, with these weights, and print the seconds; for the benchmark."""


def weights(extractor: str, folder: Path) -> Path | None:
    """Return a file of weights for DINOv2's smallest network: drawn ones, which take as long as the published ones."""
    if extractor != "dinov2":
        return None
    path = folder / "dinov2.safetensors"
    save_file(random_weights(lambda: DinoV2(384, 12), "bench evaluation"), path)
    return path


@torch.inference_mode()
def bare(extractor: str, batches: int, file: Path | None) -> float:
    """Return the seconds of so many batches through the network alone."""
    torch.set_num_threads(1)
    network = EXTRACTORS[extractor](ExtractorOptions(file)).network
    x = torch.full((BATCH, 3, network.size, network.size), 127.0)
    network(x)
    return seconds(lambda: [network(x) for _ in range(batches)])


class Candidates:
    """Each call returns seconds."""

    def __init__(self, args: Bench, folder: Path) -> None:
        self.args, self.folder, self.file = args, folder, weights(args.extractor, folder)
        self.options = ["--extractor", args.extractor, *(("--weights", str(self.file)) if self.file else ())]

    def prepare(self) -> None:
        """Build shards and train a run for an instant: what is painted does not matter, only that it is."""
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run_build(Build((self.args.source,), self.folder / "shards"))
        places = ["--run", str(self.folder / "run"), "--data", str(self.folder / "shards")]
        settings = ["--total-images", "128", "--processes", "1", "--tracking.mode", "disabled"]
        settings += ["--sample-every-images", "0"]
        run_module("trainer", "train", self.args.recipe, *places, *settings)

    def whole(self, count: int) -> float:
        """Evaluate with nothing kept from before."""
        cache = self.folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        command = ["trainer", "evaluate", str(self.folder / "run"), "--cache", str(cache)]
        numbers = ["--num-samples", str(count), "--processes", str(self.args.processes)]
        return seconds(lambda: run_module(*command, *numbers, *self.options))

    def bare(self) -> float:
        """Pass as many pictures through the network, beside one another."""
        batches = SIDES * self.args.num_samples // BATCH // self.args.processes
        command = [sys.executable, "-m", "bench.evaluation", "--extractor", self.args.extractor]
        passes = [*command, "--passes", str(batches), str(self.file)]
        beside = [subprocess.Popen(passes, stdout=subprocess.PIPE, text=True) for _ in range(self.args.processes)]
        return max(float(process.communicate()[0]) for process in beside)


def measure(args: Bench, folder: Path) -> None:
    """Take turns and print the table."""
    ways = Candidates(args, folder)
    ways.prepare()
    many, few, alone = "many", "few", "alone"
    candidates: dict[str, Callable[[], float]] = {
        many: partial(ways.whole, args.num_samples),
        few: partial(ways.whole, args.few),
        alone: ways.bare,
    }
    times = take_turns(candidates, args.turns)
    pictures = SIDES * args.num_samples
    each = [(a - b) / (pictures - SIDES * args.few) for a, b in zip(times[many], times[few], strict=True)]
    speeds = {
        f"`trainer evaluate`, whole command, {pictures:,} pictures": [pictures / s for s in times[many]],
        f"the same without its start: what each picture beyond {SIDES * args.few:,} costs": [1 / s for s in each],
        "bare forward pass": (base := [pictures / s for s in times[alone]]),
    }
    rows = [[name, spread(speed, 0), spread(ratios(speed, base))] for name, speed in speeds.items()]
    table([f"{args.extractor}, {args.processes} processes, {args.turns} turns", "images/s", "× bare"], rows)


def main(args: Bench) -> None:
    if args.passes:
        batches, file = args.passes
        print(bare(args.extractor, batches, file))
        return
    print(f"{machine()}; 1 thread a process\n")
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


if __name__ == "__main__":
    main(tyro.cli(Bench))
