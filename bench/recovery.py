"""How long an interruption costs: `python -m bench.recovery`.

From the first process of a restarted run to its first new step, beside what nobody can save: importing torch, opening
the data, loading the weights. And from SIGTERM to a durable checkpoint, beside a step and the bare write of its bytes.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import tyro

from bench.measure import machine, ratios, seconds, spread, table, take_turns
from launcher.jobs.attempts import to_seconds as seconds_of
from shards.building.build import run_build
from shards.building.options import Build
from trainer.runs import journal
from trainer.runs.checkpoint import find_checkpoints
from trainer.runs.journal import EventKind
from trainer.runs.run_folder import RunFolder

RESTART, BARE, OPTIMIZER, SAVE, WRITE = "restart", "bare", "optimizer", "save", "write"

# What a restart cannot do without, alone in a process of its own.
LEAST = """
import os, sys
from pathlib import Path
os.environ["OMP_NUM_THREADS"] = "1"
import torch
from safetensors.torch import load_file
from shards.dataset.index import Index
Index.open(Path(sys.argv[1]))
weights = load_file(sys.argv[2])
if sys.argv[3:]:  # torch.optim loads torch._dynamo when the first optimizer is made
    torch.optim.Adam([next(iter(weights.values()))])
"""


@dataclass(frozen=True)
class Bench:
    """Measure recovery."""

    recipe: str = "dcgan-64"
    turns: int = 5
    source: Path = Path("examples/clipart.zip")


class Candidates:
    """One run that is interrupted and resumed again and again; each call returns seconds."""

    def __init__(self, args: Bench, folder: Path) -> None:
        self.args, self.folder, self.run = args, folder, RunFolder(folder / "run")
        self.steps: list[float] = []
        self.durable: list[float] = []
        self.process: subprocess.Popen[bytes] | None = None

    def rows(self) -> list[dict[str, float]]:
        """The steps so far, with their times."""
        return [row for row in journal.read_rows(self.run.system) if "elapsed_s" in row]  # others are of nodes

    def restart(self) -> float:
        """Resume the run, and return the seconds until its first new step was recorded."""
        before = len(self.rows())
        batch = 128 if self.args.recipe != "dcgan-32" else 64
        command = [sys.executable, "-m", "trainer", "train", self.args.recipe, "--run", str(self.run.path)]
        command += ["--data", str(self.folder / "shards"), "--processes", "1", "--log-every-images", str(batch)]
        command += ["--sample-every-images", "1000000000", "--checkpoint-every-images", "1000000000"]
        started = time.time()
        environment = os.environ | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, "--tracking.mode", "disabled"], stderr=subprocess.DEVNULL, env=environment
        )
        while len(self.rows()) <= before + 1:  # the second one tells how long a step takes
            if self.process.poll() is not None:
                raise SystemExit(f"the run ended with {self.process.returncode}")
            time.sleep(0.01)
        first, second = (row["time"] for row in self.rows()[before : before + 2])
        self.steps.append(second - first)
        return first - started

    def save(self) -> float:
        """Send SIGTERM to the run, and return the seconds until its checkpoint was durable."""
        assert self.process
        asked = time.time()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        saved = [row for row in journal.read_rows(self.run.events) if row["kind"] == EventKind.CHECKPOINT][-1]
        return seconds_of(saved["time"]) - asked

    def bare(self, *with_optimizer: str) -> float:
        """Return the seconds of what no restart can do without."""
        weights = str(find_checkpoints(self.run.checkpoints)[0].path / "state.safetensors")
        command = [sys.executable, "-c", LEAST, str(self.folder / "shards"), weights, *with_optimizer]
        return seconds(lambda: subprocess.run(command, check=True))

    def write(self) -> float:
        """Return the seconds of writing and flushing as many bytes as a checkpoint has."""
        data = (find_checkpoints(self.run.checkpoints)[0].path / "state.safetensors").read_bytes()

        def act() -> None:
            with (self.folder / "bare").open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

        return seconds(act)


def measure(args: Bench, folder: Path) -> None:
    """Take turns and print the tables."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        size = int(args.recipe.partition("-")[2])
        run_build(Build(args.source, folder / "shards", size=(str(size),), encode="raw", holdout=0.0))
    ways = Candidates(args, folder)
    ways.restart()
    ways.save()
    ways.steps.clear()
    order: dict[str, Callable[[], float]] = {
        BARE: ways.bare,
        OPTIMIZER: partial(ways.bare, "with an optimizer"),
        WRITE: ways.write,
        RESTART: ways.restart,
        SAVE: ways.save,
    }
    times: dict[str, list[float]] = {name: [] for name in order}
    for _ in range(args.turns):  # a save needs its restart before it, so the order stays
        for name, values in take_turns({name: partial(act) for name, act in order.items()}, 1).items():
            times[name] += values
    after = [restart - step for restart, step in zip(times[RESTART], ways.steps, strict=True)]
    floor = [step + 1.5 * write for step, write in zip(ways.steps, times[WRITE], strict=True)]
    title = f"{args.recipe}, {args.turns} turns"
    restart = "from the first process to the first new step, without that step"
    beside = [spread(ratios(after, times[name])) for name in (BARE, OPTIMIZER)]
    table(
        [title, "s", "÷ bare", "÷ bare with an optimizer"],
        [
            [restart, spread(after), *beside],
            ["bare: import torch, open the data, load the weights", spread(times[BARE]), "1", ""],
            ["the same, and make one of torch's optimizers", spread(times[OPTIMIZER]), "", "1"],
        ],
    )
    table(
        [title, "s", "÷ target"],
        [
            ["from SIGTERM to a durable checkpoint", spread(times[SAVE]), spread(ratios(times[SAVE], floor))],
            ["target: a step and 1.5 × the bare write", spread(floor), "1"],
        ],
    )
    print(f"a step takes {median(ways.steps):.2f} s\n")


def main(args: Bench) -> None:
    print(f"{machine()}; 1 process\n")
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


if __name__ == "__main__":
    main(tyro.cli(Bench))
