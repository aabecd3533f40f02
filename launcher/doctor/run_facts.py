"""What a run has measured of itself: its saves, its steps, its failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from launcher.jobs import runs
from launcher.jobs.attempts import OWN_FAULTS, Attempt, Cause, to_seconds
from trainer.config.config import Config
from trainer.runs import checkpoint, journal
from trainer.runs.config_loading import read_config
from trainer.runs.journal import EventKind
from trainer.runs.run_folder import RunFolder

RECENT = 100  # rows and saves that are judged: older ones may be of other nodes
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
    checkpoints: int = 0
    checkpoint_bytes: int = 0
    exchanged_mb: float = 0.0
    """Gradients and statistics of a step."""
    environment: dict[str, object] = field(default_factory=dict)
    warn_s: int | None = None
    """Of the job that was submitted last."""
    failures: int = 0
    """Of this run and its sisters, those that lost something and were not the run's own doing."""
    watched_s: float = 0.0
    """How long they all have trained."""

    @property
    def step_s(self) -> float | None:
        """The seconds of a step; None: it has taken none."""
        return self.config.step_images / self.images_per_s if self.config and self.images_per_s else None


def read_run_facts(run: RunFolder) -> RunFacts:
    """Return what is known of a run.

    Raises:
        Refused: there is none.
    """
    config = read_config(run)
    speeds = [float(row["images_per_s"]) for row in journal.read_rows(run.system) if "images_per_s" in row][-RECENT:]
    events = list(journal.read_rows(run.events))
    saves = [row for row in events if row.get("kind") == EventKind.CHECKPOINT][-RECENT:]
    environments = [row for row in events if row.get("kind") == EventKind.ENVIRONMENT]
    record = runs.record_of(run)
    sister_attempts = [(folder, runs.attempts_of(folder)) for folder in sibling_runs(run)]
    checkpoints = checkpoint.find_checkpoints(run.checkpoints)
    return RunFacts(
        config=config,
        images_per_s=median(speeds) if speeds else 0.0,
        stall_s=median(row["stall_s"] for row in saves) if saves else None,
        # The longest one, as the grace time must suffice for it too; of what saves cost, the usual one counts.
        save_s=max(row["stall_s"] + row["write_s"] for row in saves) if saves else None,
        checkpoints=len(checkpoints),
        checkpoint_bytes=size_of(checkpoints),
        exchanged_mb=exchanged_mb(config),
        environment=dict(environments[-1]) if environments else {},
        warn_s=record.warn_s if record else None,
        failures=sum(counts_as_failure(attempt) for _, attempts in sister_attempts for attempt in attempts),
        watched_s=sum(trained_s(folder, attempts) for folder, attempts in sister_attempts),
    )


def sibling_runs(run: RunFolder) -> list[RunFolder]:
    """Return the runs beside this one, and itself: they have trained on the same cluster."""
    return [RunFolder(Path(path).parent) for path in sorted(run.path.resolve().parent.glob("*/attempts.jsonl"))]


def counts_as_failure(attempt: Attempt) -> bool:
    """Tell whether an attempt was lost; one that brought nothing, by its own fault, says nothing of the cluster."""
    crash_loop = attempt.cause in OWN_FAULTS and attempt.saved <= attempt.images_seen
    return attempt.cause in LOSSES and not crash_loop


def trained_s(run: RunFolder, attempts: Sequence[Attempt]) -> float:
    """Return how long a run has trained, as far as is known: one that goes on, until its newest row."""
    trained = sum(to_seconds(attempt.ended) - to_seconds(attempt.began) for attempt in attempts if attempt.ended)
    # The newest row is as good as the end: of an attempt that goes on, or one whose end nobody has noted.
    if attempts and not attempts[-1].ended and run.system.exists():
        trained += max(0.0, run.system.stat().st_mtime - to_seconds(attempts[-1].began))
    return trained


def size_of(checkpoints: Sequence[checkpoint.Checkpoint]) -> int:
    """Return the bytes of the newest checkpoint; 0: there is none."""
    return sum(file.stat().st_size for file in checkpoints[0].path.iterdir()) if checkpoints else 0


def exchanged_mb(config: Config) -> float:
    """Return what the ranks sum up in a step: the gradients of D for each of its updates, and those of G."""
    import torch

    from trainer.networks import build_discriminator, build_generator

    # Shapes without memory: nothing is computed, and the networks may be too large for this machine.
    with torch.device("meta"):
        networks = (
            build_generator(config.generator, config.network),
            build_discriminator(config.discriminator, config.network),
        )
    # Gradients are exchanged as float32, whatever the precision of the forward pass.
    g, d = (sum(p.numel() for p in network.parameters()) * 4 / 1e6 for network in networks)
    return g + config.d_steps * d
