"""How far a share of a dataset is: `progress.json` in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from shards.atomic_files import write_atomically
from trainer.core.migration import load_json, with_schema
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class ShareProgress:
    """What of a share is done, durably. Times are seconds since 1970."""

    done: int = 0
    """Pictures or tars."""
    done_before: int = 0
    """Those that earlier attempts have done."""
    began: float = 0.0
    """When the newest attempt did."""
    time: float = 0.0
    """When the last one was done."""

    @staticmethod
    def path(run: RunFolder) -> Path:
        """Return the path of the file."""
        return run.path / "progress.json"

    @classmethod
    def of(cls, run: RunFolder) -> ShareProgress:
        """Read that of a share; where there is none, or none that can be read, nothing is done."""
        try:
            return cls(**load_json(cls.path(run)))
        except (OSError, ValueError, TypeError):
            return cls()

    def save(self, run: RunFolder) -> None:
        """Write it; it is told anew after each task, so it need not be durable."""
        write_atomically(self.path(run), json.dumps(with_schema(asdict(self))).encode() + b"\n", durable=False)

    @property
    def per_s(self) -> float | None:
        """The speed of the newest attempt; None: it has done nothing yet."""
        done, took_s = self.done - self.done_before, self.time - self.began
        return done / took_s if done > 0 and took_s > 0 else None
