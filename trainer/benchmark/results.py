"""What is kept of each training, so that a benchmark that was killed goes on with the trainings that it lacks.

OUT/<protocol>/<recipe>/seed-003.json   the figures, and what they are figures of; written last
OUT/<protocol>/<recipe>/seed-003.npy    the samples that a picture shows
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from shards.atomic_files import write_atomically
from trainer.benchmark.figures import Figures
from trainer.benchmark.protocol import Samples
from trainer.core.fields import Refused
from trainer.core.migration import load, numbered


@dataclass(frozen=True)
class Trial:
    """One training."""

    protocol: str
    recipe: str
    seed: int
    steps: int

    def file(self, out: Path, suffix: str = ".json") -> Path:
        """Return where its results lie."""
        return out / self.protocol / self.recipe / f"seed-{self.seed:03d}{suffix}"


@dataclass(frozen=True)
class Result:
    """What came of one training."""

    identity: str
    """Hash of the settings."""
    steps: int
    """Updates of G."""
    weights: str
    """SHA-256 of the final state, as `trainer fingerprint` has it."""
    figures: Figures
    cpu_s: float
    """Seconds of one core; the only number here that another run of the same seed may change."""


def write(job: Trial, out: Path, result: Result, samples: Samples) -> None:
    """Keep a result, and the samples before it."""
    job.file(out).parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.save(content, samples)
    write_atomically(job.file(out, ".npy"), content.getvalue())
    write_atomically(job.file(out), (json.dumps(numbered(asdict(result)), indent=2) + "\n").encode())


def read(job: Trial, out: Path, identities: Sequence[str]) -> Result | None:
    """Return what is kept of a training; None: nothing.

    Args:
        job: the training.
        out: of the benchmark.
        identities: of its settings.

    Raises:
        Refused: it is of other settings or steps, or cannot be read.
    """
    path = job.file(out)
    try:
        values = load(path)
        result = Result(**values | {"figures": Figures(**values["figures"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Refused(f"{path} cannot be read ({error}): remove it, and its training is done again") from error
    if result.identity not in identities or result.steps != job.steps:
        raise Refused(
            f"{path} holds a training of {result.steps:,} steps, and the one asked for has {job.steps:,} or other "
            "settings: name another --out, or remove the file"
        )
    return result


def read_samples(job: Trial, out: Path) -> Samples:
    """Return the samples that are kept of a finished training."""
    samples: Samples = np.load(job.file(out, ".npy"))
    return samples
