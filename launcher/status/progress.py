"""How far a run is, how fast, and what of it is durable: from the journals and the checkpoints' names alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.jobs.runs import rows_of
from trainer.core.migration import load_json
from trainer.runs.journal import Row
from trainer.runs.run_folder import RunFolder

RECENT = 40  # logged steps


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    images_seen: int
    """By the newest row of metrics, or the checkpoint, if that is newer."""
    total_images: int | None
    """At which it ends; None: not known before the first row."""
    images_per_s: float | None
    """Of the newest logged step of the training that goes on."""
    images_per_s_average: float | None
    """Over the time that was spent training: what lies between two attempts does not count."""
    metrics: dict[str, Any]
    """The newest value of each."""
    logged: float | None
    """When the newest row was written, in seconds since 1970."""
    checkpoint_images: int | None
    """Of the newest durable checkpoint."""
    checkpoint_time: float | None
    recent_speeds: tuple[float, ...] = ()
    """The images per second of the newest logged steps, the newest last, over attempts."""

    @property
    def at_risk(self) -> int:
        """The images that a kill now would have trained again."""
        return max(0, self.images_seen - (self.checkpoint_images or 0))

    @property
    def eta_s(self) -> float | None:
        """How much longer it takes, at the speed of now."""
        speed = self.images_per_s or self.images_per_s_average
        return max(0, self.total_images - self.images_seen) / speed if speed and self.total_images else None


def read_progress(run: RunFolder, since: float) -> Progress:
    """Read how far a run is; `since` is when the training that goes on began."""
    metrics = [row for row in rows_of(run.metrics) if isinstance(row.get("images_seen"), int)]
    system = [row for row in rows_of(run.system) if {"images_seen", "elapsed_s", "time"} <= row.keys()]
    # Not all rows: `status` looks at many runs, and a metric that is not among these is old.
    newest = {key: value for row in metrics[-200:] for key, value in row.items()}
    reached = newest.pop("images_seen", 0)
    # The last row may be of an attempt that has ended: it would show a speed where nothing trains yet.
    now = [row for row in system[-1:] if row["time"] >= since]
    images, written = newest_checkpoint(run)
    return Progress(
        max(reached, images or 0),
        images_at_end(run.config, reached, newest.get("epoch")),
        now[0].get("images_per_s") if now else None,
        average_speed(system),
        newest,
        system[-1]["time"] if system else None,
        images,
        written,
        tuple(row["images_per_s"] for row in system[-RECENT:] if isinstance(row.get("images_per_s"), int | float)),
    )


def average_speed(system: Sequence[Row]) -> float | None:
    """Return the images per second between rows of the same attempt."""
    images, elapsed_s = 0, 0.0
    for before, row in itertools.pairwise(system):
        trained_s = row["elapsed_s"] - before["elapsed_s"]  # by a clock that begins anew with each attempt
        paused_s = row["time"] - before["time"] - trained_s
        # Both clocks agree, so that no other attempt began between these two rows.
        if abs(paused_s) < 1 and row["images_seen"] > before["images_seen"]:
            images += row["images_seen"] - before["images_seen"]
            elapsed_s += trained_s
    return images / elapsed_s if elapsed_s else None


def images_at_end(config: Path, images_seen: int, epoch: float | None) -> int | None:
    """Return the images at which a run ends, as Config.images_to_see does, but without torch."""
    try:
        values = load_json(config)
        wanted = values["total_images"]
        if values["epochs"] is not None:
            if not epoch:
                return None
            # The newest row tells how many pictures an epoch has: the dataset need not be opened, nor be there.
            wanted = values["epochs"] * round(images_seen / epoch)
        step = values["batch_size"] * values["d_steps"]
        # Rounded up: training ends with a whole step.
        return int(-(-wanted // step) * step)
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError):
        return None


def newest_checkpoint(run: RunFolder) -> tuple[int | None, float | None]:
    """Return the images seen at the newest durable checkpoint, and when it was written."""
    if not (newest := run.newest_checkpoint()):
        return None, None
    try:
        return newest[0], newest[1].stat().st_mtime
    except OSError:  # pruned just now
        return newest[0], None
