"""The best checkpoint of a run, chosen on one seed set so that it can be reported on another: RUN/best.json.

The best of many noisy figures looks better than it is: whoever reports must measure it again, with other noise.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.core.migration import load
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Best:
    """Which checkpoint, and why."""

    checkpoint: str
    images_seen: int
    column: str
    value: float

    @classmethod
    def of(cls, run: RunFolder) -> Best | None:
        """Read best.json; None: nothing was chosen yet."""
        try:
            return cls(**load(run.best))
        except (FileNotFoundError, ValueError, TypeError):
            return None
