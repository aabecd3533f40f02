"""Alarms of the collapse monitor as W&B alerts: each at least once, and twice only if a kill falls in between."""

from __future__ import annotations

from math import inf

from shards.atomic_files import write_atomically
from trainer.runs import journal
from trainer.runs.journal import EventKind, Follower
from trainer.runs.run_folder import RunFolder
from trainer.tracking.wandb_run import WandbRun

LOUD = "collapsed", "diverged"


class Alerts:
    """The alarms in a run's events that W&B has not been told of.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run, self.events = run, Follower(run.events)
        self.count = run.wandb / "alerts"
        self.told = int(self.count.read_text()) if self.count.exists() else 0
        self.waiting: list[journal.Row] = []
        self.met = 0

    def send(self, to: WandbRun | None, until: float = inf) -> None:
        """Pass on what is new up to `until` images seen, if there is a W&B run to tell."""
        for row in self.events.read():
            if row["kind"] == EventKind.COLLAPSE_ALARM and row["state"] in LOUD:
                self.met += 1
                self.waiting += [row] if self.met > self.told else []
        while to and self.waiting and self.waiting[0]["images_seen"] <= until:
            row = self.waiting[0]
            text = f"{row['problem']} (after {row['images_seen']:,} images; {self.run.path.name})"
            to.alert(f"The generator has {row['state']}", text, self.run.samples / row["picture"])
            # Now that it is sent: a kill in between sends it twice, rather than never.
            self.told += 1
            write_atomically(self.count, str(self.told).encode())
            del self.waiting[0]

    def close(self) -> None:
        """Close the file."""
        self.events.close()
