"""What a run says while it trains: rows of metrics, figures of the system, one status line. Main process only."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainer.tracking.tracker import Tracker

if TYPE_CHECKING:  # `launcher` sets up the log by this file, and does not load torch for a look
    from trainer.core.step_phases import StepTimes
    from trainer.tracking.stalls import Stalls

log = logging.getLogger(__name__)


class Reporter:
    """Turns the scalars of a step into rows and a line.

    Args:
        tracker: takes the rows.
        total: pictures at which training ends.
        samples: pictures in the training set.
        times: where the time of the steps went.
        stalls: what held training up.
    """

    def __init__(self, tracker: Tracker, total: int, samples: int, times: StepTimes, stalls: Stalls) -> None:
        self.tracker, self.total, self.samples, self.times, self.stalls = tracker, total, samples, times, stalls
        self.started = self.last_time = time.monotonic()
        self.last_images: int | None = None
        self.images_seen = 0  # so far, of which not all steps are logged
        self.stall_s = 0.0

    def log(self, images_seen: int, scalars: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float]:
        """Record the times of one step, say how far the run is, and return the step's row of metrics.

        Args:
            images_seen: after the step.
            scalars: of the step.
            measured: of the generator after it, as far as that is known.
        """
        now = time.monotonic()
        system: dict[str, float] = {"images_seen": images_seen, "elapsed_s": round(now - self.started, 3)}
        speed = 0.0
        if self.last_images is not None and now > self.last_time:
            speed = system["images_per_s"] = round((images_seen - self.last_images) / (now - self.last_time), 2)
            system |= self.stalls.shares(now - self.last_time)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        # Linux counts KiB.
        system |= {"peak_memory_mb": usage.ru_maxrss // 1024, "checkpoint_stall_s": round(self.stall_s, 4)}
        self.last_time, self.last_images = now, images_seen
        self.tracker.system(system | self.times.shares())
        # `stop` says what happened to this attempt, not what the run computes, so a replay need not repeat it.
        columns = {name: value for name, value in scalars.items() if name != "stop"}
        log.info(self.line(images_seen, {**scalars, **measured}, speed))
        return {"images_seen": images_seen, "epoch": images_seen / self.samples, **columns}

    def log_node(self, figures: Mapping[str, float | str]) -> None:
        """Record the figures of a node; called by a thread, at any time."""
        self.tracker.system({"images_seen": self.images_seen, **figures})

    def line(self, images_seen: int, scalars: Mapping[str, float], speed: float) -> str:
        """Return the status line."""
        eta = f"{format_remaining(self.total - images_seen, speed):>9}" if speed else " " * 9
        swd = "".join(f"  {name} {value:.1f}" for name, value in scalars.items() if name.startswith("swd"))
        return (
            f"{images_seen:>12,} / {self.total:,} images {images_seen / self.total:4.0%}  {speed:7.1f}/s {eta}  "
            f"D {scalars['loss_d']:.3f}  G {scalars['loss_g']:.3f}{swd}"
        )


def format_remaining(images: int, speed: float) -> str:
    """Say how long `images` more take."""
    return f"{format_duration(images / speed)} left"


def format_duration(seconds: float) -> str:
    """Say how long something takes."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def set_up_logging(rank: int, own_log: bool = False) -> None:
    """Log to standard error: everything from the main process, warnings from the others, with their rank.

    With a log of its own for each process, each line begins with the time in UTC, by which they can be merged.
    """
    prefix = f"%(asctime)s.%(msecs)03dZ [rank {rank}] " if own_log else f"[rank {rank}] " if rank else ""
    formatter = logging.Formatter(f"{prefix}%(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    # force: a library that was imported may have set up logging.
    logging.basicConfig(handlers=[handler], level=logging.INFO if rank == 0 else logging.WARNING, force=True)
    logging.captureWarnings(True)
