"""Alerts to W&B: each at least once, and twice only if a kill falls in between."""

from __future__ import annotations

from math import inf

from shards.atomic_files import write_atomically
from trainer.runs.journal import EventKind, Follower, Row
from trainer.runs.run_folder import RunFolder
from trainer.tracking.alerts import Alert, alert_of
from trainer.tracking.wandb_run import WandbRun


class Alerts:
    """What of a run's events W&B has not been told.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run, self.events = run, Follower(run.events)
        self.count = run.wandb / "alerts"
        self.told = int(self.count.read_text()) if self.count.exists() else 0
        self.waiting: list[Alert] = []
        self.met = 0
        self.of_attempt: set[tuple[str, str]] = set()

    def send(self, to: WandbRun | None, until: float = inf) -> None:
        """Pass on what is new up to `until` images seen, if there is a W&B run to tell."""
        for row in self.events.read():
            self.take(row)
        while to and self.waiting and self.waiting[0].images_seen <= until:
            alert = self.waiting[0]
            picture = self.run.samples / alert.picture if alert.picture else None
            to.alert(alert.title, f"{alert.text} [{self.run.path.name}]", alert.level, picture)
            # Now that it is sent: a kill in between sends it twice, rather than never.
            self.told += 1
            write_atomically(self.count, str(self.told).encode())
            del self.waiting[0]

    def take(self, row: Row) -> None:
        """Take in an event. What comes again and again in one attempt, as on a full disk, is told once."""
        if row["kind"] == EventKind.START:
            self.of_attempt.clear()
        alert = alert_of(row)
        if alert is None or (alert.title, alert.text) in self.of_attempt:
            return
        self.of_attempt.add((alert.title, alert.text))
        self.met += 1
        if self.met > self.told:
            self.waiting.append(alert)

    def close(self) -> None:
        """Close the file."""
        self.events.close()
