"""Plays the trainer in the tests of tracking: `python -m tests.tracked_run RUN`, to be killed at any moment."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from PIL import Image

from trainer.config.groups import TrackingSettings
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tracker import Tracker

STEP = 10  # pictures per row
SAMPLE_EVERY = 100


@dataclass(frozen=True)
class Play:
    """Write rows with `images_seen` from `start` to `stop`."""

    run: Annotated[Path, tyro.conf.Positional]
    start: int = 0
    stop: int = 400
    row_s: float = 0.0
    rollback: tuple[int, int] | None = None
    """once, at the first number, go back to the second"""
    outcome: str = "finished"
    close_s: float = 30.0
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    tensorboard: bool = False


def loss(images_seen: int, rollbacks: int) -> float:
    """What a replay repeats to the bit, and a rollback changes."""
    return math.sin(images_seen) + rollbacks


def play(arguments: Play) -> None:
    """Train nothing, and track it."""
    run = RunFolder(arguments.run)
    run.samples.mkdir(exist_ok=True)
    tracker = Tracker(run, TrackingSettings(arguments.mode, tensorboard=arguments.tensorboard))
    tracker.start(arguments.start)
    images_seen, rollbacks = arguments.start, 0
    while images_seen < arguments.stop or (arguments.rollback and not rollbacks):
        images_seen += STEP
        if images_seen % SAMPLE_EVERY == 0:
            Image.new("RGB", (4, 4), (images_seen % 256, 0, 0)).save(run.sample(images_seen))
        tracker.system({"images_seen": images_seen, "images_per_s": 1.5})
        tracker.metrics({"images_seen": images_seen, "d/loss": loss(images_seen, rollbacks)})
        if arguments.rollback and not rollbacks and images_seen == arguments.rollback[0]:
            images_seen, rollbacks = arguments.rollback[1], 1
            tracker.new_segment(images_seen, "d/loss became NaN")
        time.sleep(arguments.row_s)
    tracker.sync()
    print("closing", flush=True)
    tracker.close(arguments.outcome, timeout_s=arguments.close_s)


if __name__ == "__main__":
    play(tyro.cli(Play))
