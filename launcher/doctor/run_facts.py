"""What a run has measured of itself: its saves, its steps, its failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from launcher.job import attempts
from launcher.job import record as job_record
from launcher.job.attempts import Attempt, Cause
from trainer import checkpoint, journal
from trainer.config import Config
from trainer.resolve import read_config
from trainer.run_folder import RunFolder

RECENT = 100
LOSSES = (Cause.NODE_FAILED, Cause.CRASHED, Cause.STALLED)  # ends without a save


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run; nothing of what it has not done yet."""

    config: Config | None = None
    images_per_s: float = 0.0
    stall_s: float | None = None
    """How long a save stops training; the median."""
    save_s: float | None = None
    """From the moment when a save is asked for until it is durable; the longest."""
    checkpoint_bytes: int = 0
    exchanged_mb: float = 0.0
    """Gradients and statistics of a step."""
    environment: dict[str, object] = field(default_factory=dict)
    warn_s: int | None = None
    """Of the job that was submitted last."""
    failures: int = 0
    """Of this run and its sisters, those that lost something."""
    watched_s: float = 0.0
    """How long they all have trained."""

    @property
    def step_s(self) -> float | None:
        """The seconds of a step; None: it has taken none."""
        return self.config.step_images / self.images_per_s if self.config and self.images_per_s else None


def read(run: RunFolder) -> RunFacts:
    """Return what is known of a run.

    Raises:
        Refused: there is none.
    """
    config = read_config(run)
    speeds = [float(row["images_per_s"]) for row in journal.rows(run.system) if "images_per_s" in row][-RECENT:]
    events = list(journal.rows(run.events))
    saves = [row for row in events if row.get("kind") == "checkpoint"][-RECENT:]
    environments = [row for row in events if row.get("kind") == "environment"]
    record = job_record.find(run)
    starts = [attempt for folder in sisters(run) for attempt in attempts.read(folder)]
    return RunFacts(
        config=config,
        images_per_s=median(speeds) if speeds else 0.0,
        stall_s=median(row["stall_s"] for row in saves) if saves else None,
        save_s=max(row["stall_s"] + row["write_s"] for row in saves) if saves else None,
        checkpoint_bytes=size_of(checkpoint.find(run.checkpoints)),
        exchanged_mb=exchanged_mb(config),
        environment=dict(environments[-1]) if environments else {},
        warn_s=record.warn_s if record else None,
        failures=sum(start.cause in LOSSES for start in starts),
        watched_s=sum(lived(start) for start in starts),
    )


def sisters(run: RunFolder) -> list[RunFolder]:
    """Return the runs beside this one, and itself: they have trained on the same cluster."""
    return [RunFolder(Path(path).parent) for path in sorted(run.path.resolve().parent.glob("*/attempts.jsonl"))]


def lived(start: Attempt) -> float:
    """Return how long a start has trained, as far as is known."""
    return attempts.seconds(start.ended) - attempts.seconds(start.began) if start.ended else 0.0


def size_of(checkpoints: Sequence[checkpoint.Checkpoint]) -> int:
    """Return the bytes of the newest checkpoint; 0: there is none."""
    return sum(file.stat().st_size for file in checkpoints[0].path.iterdir()) if checkpoints else 0


def exchanged_mb(config: Config) -> float:
    """Return what the ranks sum up in a step: the gradients of D for each of its updates, and those of G."""
    import torch

    from trainer.networks import ARCHITECTURES

    def megabytes(build: Any) -> float:
        with torch.device("meta"):
            return float(sum(p.numel() for p in build(config.network).parameters()) * 4 / 1e6)

    networks = ARCHITECTURES[config.architecture]
    return megabytes(networks.generator) + config.d_steps * megabytes(networks.discriminator)
