"""RUN/best.json: the best checkpoint of a run, chosen on one seed set so that it can be reported on another.

The best of many noisy figures looks better than it is (selection bias), so a report measures it again with other noise.
This file is apart from best_checkpoint.py because a training reads it, and must not import all metrics for that.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.core.migration import load_json
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class BestCheckpoint:
    """The chosen checkpoint, and the figure that it was chosen by."""

    checkpoint: str
    images_seen: int
    column: str
    value: float

    @classmethod
    def of(cls, run: RunFolder) -> BestCheckpoint | None:
        """Read best.json; None: none is chosen yet."""
        try:
            return cls(**load_json(run.best))
        except (FileNotFoundError, ValueError, TypeError):
            return None
