"""What the sentinel is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainer.settings import identity, operational

LEAST = 32  # training pictures: of fewer, nothing can be said
CHANGES = "learning-rate", "penalty", "augmentation", "packing", "draws"
Policy = Literal["tell", "stop", "roll-back"]


@dataclass(frozen=True)
class SentinelSettings:
    """How the run is watched for collapse, and what happens then."""

    every_images: int = identity(32_000, "[0, inf)")
    """Look at what the generator paints each time so many pictures were seen; 0, or fewer than 32 pictures: never."""
    policy: Policy = operational("tell")
    """tell: alert, and train on; stop: save, and end; roll-back: go back to the last healthy anchor, and go on from
    there with other draws and with what the changes say, max_rollbacks times in all."""
    changes: str = operational("learning-rate,penalty,augmentation")
    """What each roll-back changes, in turn: learning-rate, penalty, augmentation, packing, draws (nothing besides)."""

    def check(self) -> str | None:
        """Return what is wrong with these settings, or None."""
        names = parse_changes(self.changes)
        if odd := [name for name in names if name not in CHANGES]:
            return f"sentinel.changes: there is no change {odd[0]!r}; there are {', '.join(CHANGES)}"
        return None if names else f"sentinel.changes names none: at least one of {', '.join(CHANGES)}"


def parse_changes(changes: str) -> list[str]:
    """Read names that are separated by commas."""
    return [name.strip() for name in changes.split(",") if name.strip()]
