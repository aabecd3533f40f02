"""What a study wants of a run: `study.json` in its folder. Whoever trains the run measures it so when it has ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shards.atomic_files import write_atomically
from trainer.core.migration import load_json, with_schema
from trainer.runs.run_folder import RunFolder

SeedSet = Literal["select", "report"]


@dataclass(frozen=True)
class Measurement:
    """By what the runs are compared."""

    metric: str = "fid"
    """The figure that decides, one of those that `metrics` give."""
    metrics: tuple[str, ...] = ("fid", "kid", "prdc")
    """What is measured of each run when it ends."""
    extractor: str | None = None
    """What turns pictures into features; default: that of trainer evaluate."""
    num_samples: int = 5_000
    """Pictures of each side."""


@dataclass(frozen=True)
class EvaluationTarget:
    """Train until `images` were seen, then measure."""

    images: int
    seed_set: SeedSet
    evaluation: Measurement
    cache: str
    """Where features of the data are kept."""

    @classmethod
    def of(cls, run: RunFolder) -> EvaluationTarget | None:
        """Read a run's; None: no study wants anything of it."""
        if not run.study.exists():
            return None
        values = load_json(run.study)
        evaluation = values["evaluation"]
        return cls(**values | {"evaluation": Measurement(**evaluation | {"metrics": tuple(evaluation["metrics"])})})

    def save(self, run: RunFolder) -> None:
        """Write it, atomically."""
        write_atomically(run.study, json.dumps(with_schema(asdict(self)), indent=1).encode() + b"\n")

    def score(self, run: RunFolder) -> Path:
        """Where the figures will lie: a file of its own for each way of measuring."""
        how = hashlib.sha256(json.dumps(asdict(self.evaluation), sort_keys=True).encode()).hexdigest()
        return run.path / f"score-{self.images:012d}-{self.seed_set}-{how[:8]}.json"

    def figures(self, run: RunFolder) -> Mapping[str, Any] | None:
        """Return what was measured; None: nothing yet."""
        try:
            return load_json(self.score(run))
        except FileNotFoundError:
            return None

    def due(self, run: RunFolder) -> bool:
        """Tell whether the run is trained so far, and not measured yet."""
        return images_trained(run) >= self.images and not self.score(run).exists()

    def command(self, run: RunFolder, processes: int) -> list[str]:
        """Return the arguments of `python -m trainer` that measure it."""
        newest = run.newest_checkpoint()
        # By its name: the figures belong to this checkpoint, whichever is the newest when they are computed.
        how, name = self.evaluation, newest[1].name if newest else ""
        command = ["evaluate", str(run.path.resolve()), "--checkpoint", name, "--seed-set", self.seed_set]
        command += ["--metrics", *how.metrics, "--num-samples", str(how.num_samples), "--processes", str(processes)]
        command += ["--extractor", how.extractor] if how.extractor else []
        return [*command, "--cache", self.cache, "--json", str(self.score(run).resolve())]


def images_trained(run: RunFolder) -> int:
    """Return the images seen at the newest durable checkpoint."""
    newest = run.newest_checkpoint()
    return newest[0] if newest else 0
