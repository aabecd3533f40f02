"""The attempts of a run, of its jobs and on one machine, in the order of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from launcher.jobs.attempts import Attempt, Cause
from trainer.runs.journal import EventKind, Row
from trainer.runs.lease_holder import Owner

OUTCOMES = {"finished": "finished", "interrupted": "asked to stop by a signal", "failed": "crashed"}


@dataclass(frozen=True)
class RunAttempt:
    """One attempt of a run: of its job, or on one machine."""

    number: int | None
    """As `launcher logs --restart` counts; None: on one machine, which has no logs of its own."""
    job: int | None
    began: str
    ended: str | None
    nodes: tuple[str, ...]
    images_from: int
    """Of the checkpoint that it began with."""
    images_saved: int | None
    """Of the newest durable checkpoint when it ended."""
    cause: str | None
    """Why it ended; None: it goes on, or has left no word."""
    detail: str


def merge_attempts(attempts: Sequence[Attempt], events: Sequence[Row]) -> tuple[RunAttempt, ...]:
    """Return the attempts of the run's jobs and those on one machine, in the order of time."""
    found = [
        RunAttempt(i, a.job, a.began, a.ended, a.nodes, a.images_seen, a.saved if a.ended else None, a.cause, a.detail)
        for i, a in enumerate(attempts)
    ]
    turns = [row for row in events if row["kind"] in (EventKind.START, EventKind.END)]
    # Each start with what follows it: its end, or after a kill the next start.
    for row, end in pairwise([*turns, {}]):
        # Those of jobs are in attempts.jsonl already, with causes that the events do not know.
        if row["kind"] == EventKind.START and on_one_machine(row, attempts):
            end = end if end.get("kind") == EventKind.END else {}
            outcome, seen = end.get("outcome"), row.get("images_seen", 0)
            detail = str(end.get("signal") or "")
            until = end.get("time", "unknown")  # which sorts after every time
            memory = [e for e in events if e["kind"] == EventKind.OUT_OF_MEMORY and row["time"] <= e["time"] <= until]
            cause = Cause.OUT_OF_MEMORY if memory else OUTCOMES.get(str(outcome))
            found.append(RunAttempt(None, None, row["time"], end.get("time"), (), seen, None, cause, detail))
    return tuple(sorted(found, key=lambda attempt: attempt.began))


def on_one_machine(start: Row, attempts: Sequence[Attempt]) -> bool:
    """Tell whether an attempt was outside any job. A row that does not say whose it is, is told by its time."""
    if isinstance(owner := start.get("owner"), str):
        return not Owner(owner).is_slurm_job
    return not any(a.began <= start["time"] <= (a.ended or "unknown") for a in attempts)  # which sorts after every time
