"""What the view of logs shows: of a job, what its processes say; of a run on one machine, what is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from command_line.printable import printable
from launcher.jobs import runs
from launcher.jobs.log_files import JobLog, Line, Tail
from launcher.prepare.folder import PrepareFolder, is_preparation
from launcher.prepare.merged_logs import MergedLog
from trainer.runs.journal import Follower, Row
from trainer.runs.run_folder import RunFolder


class Log(Protocol):
    """Lines that grow."""

    def read(self, rest: bool = False) -> list[Line]:
        """Return the lines that were added since the last call."""
        ...


class LogSource:
    """The lines of a run or a preparation, as a terminal may show them.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self.resumed = Tail(RunFolder(path).resume_log, "resume", "")
        self.log: Log
        if is_preparation(path):
            self.log = MergedLog(PrepareFolder(path), self.notes.append)
        elif runs.record_of(RunFolder(path)) or runs.attempts_of(RunFolder(path)):
            self.log = JobLog(RunFolder(path), "job", self.notes.append)
        else:
            # Trained on one machine, where processes speak to the terminal that they were started in.
            self.log = EventLog(RunFolder(path))

    def read(self) -> list[str]:
        """Return the lines that were added since the last call, what is announced of them first."""
        lines = [*self.log.read(), *self.resumed.read()]
        notes = [f"── {note}" for note in self.notes]
        self.notes.clear()
        return [printable(text) for text in (*notes, *(line.text for line in lines))]


class EventLog:
    """The events of a run, as lines.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.rows = Follower(run.events)

    def read(self, rest: bool = False) -> list[Line]:
        """Return those that were added since the last call."""
        return [Line(str(row.get("time", "")), describe_event(row)) for row in self.rows.read()]


def describe_event(row: Row) -> str:
    """Return an event as a line: when, what, and what else is known of it."""
    more = ", ".join(f"{name} {value}" for name, value in row.items() if name not in ("time", "kind") and value != "")
    # To the second, in UTC, as the logs of jobs.
    return f"{str(row.get('time', ''))[:19]}Z {row.get('kind', 'event')}{f': {more}' if more else ''}"
