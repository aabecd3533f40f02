"""What training waits for at a GPU's speed, without one: `python -m bench.stalls`.

The whole loop of a training runs, with its grids, collapse monitor and checkpoints at the intervals that are the
default of a run of that length; only a step is a wait of the time that a GPU would take. Once with measurements in
line, once beside training, on the CPU; then each cause's share of the time.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from bench.measure import machine, table
from shards.building.build import run_build
from shards.building.options import Build
from shards.dataset.index import Index
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.config.recipes import RECIPES
from trainer.gan.assembly import set_up_device
from trainer.launch.job_context import JobContext
from trainer.runs.run_folder import RunFolder
from trainer.tracking.stalls import CAUSES
from trainer.training.loop import Training
from trainer.training.rank_zero import RankZero

SCALARS = {
    **{"loss_d": 1.4, "loss_g": 0.7, "logits_real": 0.1, "logits_fake": -0.1, "sign_real": 0.0, "replaced": 0.0},
    **{"stop": 0.0, "grad_norm_d": 1.0, "grad_norm_g": 1.0},
}


@dataclass(frozen=True)
class Bench:
    """Measure the shares of time in which training stands still."""

    recipe: str = "dcgan-64"
    """What is trained; its networks are as large as they are."""
    images_per_s: float = 50_000
    """The speed of the steps alone."""
    total_images: int = 25_000_000
    """Of the run, by which its intervals go; as many as the largest published runs of GANs."""
    seconds: float = 60
    """Of steps, in each of the two runs."""
    source: Path = Path("examples/clipart.zip")
    """Pictures."""


def main() -> None:
    """Measure, and print a table."""
    args = tyro.cli(Bench, description=__doc__)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        data, size = Path(folder) / "shards", int(args.recipe.partition("-")[2])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run_build(Build(args.source, data, size=(str(size),), encode="raw", holdout=0.0))
        print(f"{machine()}\n\n{args.recipe}: {args.images_per_s:,.0f} images/s for {args.seconds:g} s\n")
        causes = [f"{cause}, %" for cause in CAUSES]
        rows = (stalls(args, data, Path(folder), where) for where in ("in-line", "cpu"))
        table(["measured", *causes, "together, %", "images/s"], rows)


def stalls(args: Bench, data: Path, folder: Path, where: str) -> list[str]:
    """Run the loop, and return the row of a table."""
    config = replace(RECIPES[args.recipe].config, data=data, mixed_precision="no", total_images=args.total_images)
    config = replace(config, measure_on=where, tracking=replace(config.tracking, mode="disabled"))
    run, index = RunFolder(folder / where), open_data(config)
    config = config.with_intervals(index.splits["train"].samples)
    run.path.mkdir()
    context = JobContext()
    training = pretend(args, config, run, index, context)
    recorder = training.recorder
    assert isinstance(recorder, RankZero)
    started = time.monotonic()
    training.train()
    wall_s = time.monotonic() - started
    recorder.end("interrupted", None)
    training.watchdog.close()
    shares = [100 * recorder.stalls.total_s[cause] / wall_s for cause in CAUSES]
    speed = training.replica.state.images_seen / wall_s
    return [where, *(f"{share:.2f}" for share in shares), f"{sum(shares):.2f}", f"{speed:,.0f}"]


def pretend(args: Bench, config: Config, run: RunFolder, index: Index, context: JobContext) -> Training:
    """Return a training whose steps only take their time."""
    training = Training(config, run, index, set_up_device(config, "here"), context)
    step_s, state = config.step_images / args.images_per_s, training.replica.state
    scalars = {name: torch.tensor(value) for name, value in SCALARS.items()}
    deadline = time.monotonic() + args.seconds

    def step(batches: object, stop: object) -> dict[str, torch.Tensor]:
        time.sleep(step_s)
        state.images_seen += config.step_images
        return scalars | {"stop": torch.tensor(float(time.monotonic() > deadline))}

    training.replica.step = step  # type: ignore[method-assign,assignment]
    training.replica.batches = lambda loader: itertools.repeat([])  # type: ignore[method-assign]
    return training


if __name__ == "__main__":
    main()
