"""The layout of a run folder: the only place that knows where anything in it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run's folder.

    RUN/
      config.json      the resolved settings; read back strictly, nothing else is read later
      metrics.jsonl    the truth: deterministic columns, one row per logged step
      system.jsonl     times, speeds, memory: one row per logged step of each attempt
      events.jsonl     starts, stops, faults, rollbacks, in the order of time
      wandb.json       the identity of the W&B run (no secrets)
      checkpoints/     one folder per checkpoint, see checkpoint.py
      samples/         real beside fake, one PNG per sampling: <images_seen>.png
      plan/            with --record-samples: the planned and the used index of each sample, one file per rank
      wandb/           wandb's own files
      lock             held by the process that trains
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """Deterministic rows, keyed by images_seen."""
        return self.path / "metrics.jsonl"

    @property
    def system(self) -> Path:
        """Times, speeds and memory."""
        return self.path / "system.jsonl"

    @property
    def events(self) -> Path:
        """Starts, stops, faults and rollbacks."""
        return self.path / "events.jsonl"

    @property
    def wandb_identity(self) -> Path:
        """The W&B run's id, project and segments."""
        return self.path / "wandb.json"

    @property
    def wandb(self) -> Path:
        """The folder that wandb itself writes to."""
        return self.path / "wandb"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Sample grids."""
        return self.path / "samples"

    def sample(self, images_seen: int) -> Path:
        """The grid painted when `images_seen` pictures had been seen."""
        return self.samples / f"{images_seen:012d}.png"

    @property
    def plan(self) -> Path:
        """Recorded sample indices, one file per rank."""
        return self.path / "plan"

    @property
    def lock(self) -> Path:
        """Held by the process that trains."""
        return self.path / "lock"
