"""What a run's owner must know, from its events: W&B sends it, and `launcher watch` shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainer.runs.journal import EventKind, Row

LOUD = "collapsed", "diverged"


@dataclass(frozen=True)
class Alert:
    """What is said, and when."""

    title: str
    text: str
    level: Literal["WARN", "ERROR"] = "ERROR"
    images_seen: int = 0
    """The alert waits for the row of these images."""
    picture: str | None = None
    """In the folder of sample grids."""


def alert_of(row: Row) -> Alert | None:
    """Return what an event has to say to the run's owner; None: nothing."""
    problem = str(row.get("problem") or "no reason is known")
    match row["kind"]:
        case EventKind.COLLAPSE_ALARM if row["state"] in LOUD:
            text = f"{problem} (after {row['images_seen']:,} images)"
            return Alert(f"The generator has {row['state']}", text, "ERROR", row["images_seen"], row["picture"])
        case EventKind.END if row["outcome"] == "failed":
            return Alert("The run has failed", problem)
        case EventKind.STALLED:
            return Alert("Training stands still", f"{problem}; silent: {', '.join(row['places'])}")
        case EventKind.OUT_OF_MEMORY:
            return Alert("Out of memory", problem)
        case EventKind.CHECKPOINT_FAILED:
            return Alert("A checkpoint was not written", f"{problem}; training goes on, the last one stays")
        case EventKind.DAMAGED_CHECKPOINT:
            return Alert("A checkpoint is damaged", f"{row['name']}: {problem}; an earlier one is used", "WARN")
        case EventKind.EVALUATION_FAILED:
            return Alert("An evaluation has failed", problem, "WARN")
        case EventKind.ROLLBACK:
            text = f"{row['why']} at {row['from']:,} images: back to {row['to']:,}, with other draws"
            return Alert("The run was rolled back", text, "WARN")
    return None
