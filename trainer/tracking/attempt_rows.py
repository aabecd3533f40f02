"""The attempts of a run on the axis of time: which one made a row, when, and how each began and ended."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from trainer.runs import journal
from trainer.runs.journal import EventKind, Follower, Row
from trainer.runs.run_folder import RunFolder

HOURS = "attempt/hours"
"""The axis: hours since the first attempt began, pauses included."""
TABLE = ["attempt", "began", "hours", "images_seen", "lost_images", "ended", "outcome", "why"]
KILLED = "no word: killed"


class AttemptRows:
    """Reads the starts and ends in a run's events, and why the cluster ended each attempt.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run, self.events = run, Follower(run.events)
        self.starts: list[Row] = []
        self.ends: dict[int, Row] = {}
        """By the number of the start before."""

    def read(self) -> None:
        """Take in what is new."""
        for row in self.events.read():
            if row["kind"] == EventKind.START:
                self.starts.append(row)
            elif row["kind"] == EventKind.END and self.starts:
                self.ends[len(self.starts)] = row

    def columns(self, images_seen: int, time_s: float | None) -> Row:
        """Return the columns of a row that was recorded at `time_s` (UNIX time); none if nothing is known of it."""
        if time_s is None or not self.starts:
            return {}
        number = sum(seconds(row) <= time_s for row in self.starts)
        # The row is written by the process that has written its start, whose clock may have been set back since.
        number = max(1, number)
        hours = max(0.0, time_s - seconds(self.starts[0])) / 3600
        return {HOURS: round(hours, 5), "attempt/number": number, "attempt/images_seen": images_seen}

    def table(self) -> list[list[Any]]:
        """Return a row of TABLE for each attempt."""
        causes = [row for row in journal.read_rows(self.run.attempts) if row.get("ended")]
        return [self.attempt(number, start, causes) for number, start in enumerate(self.starts, 1)]

    def attempt(self, number: int, start: Row, causes: list[Row]) -> list[Any]:
        """Return what is known of one attempt."""
        end = self.ends.get(number)
        over = end is not None or number < len(self.starts)
        outcome = end["outcome"] if end else KILLED if over else "goes on"
        # What the cluster says is nearer to the truth than what the process could know.
        cause = next((row for row in causes if row["began"] <= start["time"] <= row["ended"]), {})
        why = cause.get("cause") or (end or {}).get("problem") or (end or {}).get("signal") or ""
        hours = round((seconds(start) - seconds(self.starts[0])) / 3600, 5)
        seen, lost = start.get("images_seen", 0), start.get("lost_images", 0)
        return [number, start["time"], hours, seen, lost, (end or {}).get("time", ""), outcome, str(why)]

    def close(self) -> None:
        """Close the file."""
        self.events.close()


def seconds(row: Row) -> float:
    """Return an event's time as UNIX time."""
    return datetime.fromisoformat(row["time"]).timestamp()
