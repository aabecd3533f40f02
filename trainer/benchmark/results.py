"""The stored result of each trial, so that a benchmark that was killed runs only the trials without a result.

OUT/<protocol>/<recipe>/seed-003.json   the figures, and the settings that they are valid for; written last
OUT/<protocol>/<recipe>/seed-003.npy    the samples of the picture
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from shards.atomic_files import write_atomically
from trainer.benchmark.protocol import Figures, Samples
from trainer.core.fields import Refused
from trainer.core.migration import load_json, with_schema


@dataclass(frozen=True)
class Trial:
    """One training of a recipe on a protocol with a seed."""

    protocol: str
    recipe: str
    seed: int
    steps: int

    def file(self, out: Path, suffix: str = ".json") -> Path:
        """Return the file of its results."""
        return out / self.protocol / self.recipe / f"seed-{self.seed:03d}{suffix}"


@dataclass(frozen=True)
class Result:
    """The result of one trial."""

    identity: str
    """Hash of the settings: a result of other settings is refused."""
    steps: int
    """Updates of G."""
    weights: str
    """SHA-256 of the final state, as `trainer fingerprint` has it."""
    figures: Figures
    cpu_s: float
    """Seconds of one core; the only number here that another run of the same seed may change."""


def write_result(trial: Trial, out: Path, result: Result, samples: Samples) -> None:
    """Store the samples, then the result, which marks the trial as done."""
    trial.file(out).parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.save(content, samples)
    write_atomically(trial.file(out, ".npy"), content.getvalue())  # first: the .json says that both exist
    write_atomically(trial.file(out), (json.dumps(with_schema(asdict(result)), indent=2) + "\n").encode())


def read_result(trial: Trial, out: Path, identities: tuple[str, ...]) -> Result | None:
    """Return the stored result of a trial; None: there is none.

    Args:
        trial: that is asked for.
        out: the folder of the benchmark.
        identities: hashes of its settings, as `identity_hashes` returns them.

    Raises:
        Refused: it is of other settings or steps, or cannot be read.
    """
    path = trial.file(out)
    try:
        values = load_json(path)
        result = Result(**values | {"figures": Figures(**values["figures"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Refused(f"{path} cannot be read ({error}): remove it, and its training is done again") from error
    # The number of steps is no identity setting, so it is compared by itself.
    if result.identity not in identities or result.steps != trial.steps:
        raise Refused(
            f"{path} holds a training of {result.steps:,} steps, and the one asked for has {trial.steps:,} or other "
            "settings: name another --out, or remove the file"
        )
    return result


def read_samples(trial: Trial, out: Path) -> Samples:
    """Return the stored samples of a finished trial."""
    samples: Samples = np.load(trial.file(out, ".npy"))
    return samples
