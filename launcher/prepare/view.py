"""How `launcher status` shows preparations: a table, or all that is known of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher.prepare.progress import JobStatus, PrepareStatus
from launcher.status.facts import RunState
from launcher.status.words import lines, style
from trainer.tracking.console import format_duration


def preparations_table(found: Sequence[PrepareStatus]) -> RenderableType:
    """Return one row for each preparation."""
    columns = ("preparation", "state", "nodes", "restarts", "done", "per second", "left", "out")
    made = Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for status in found:
        percent = f"{status.done / status.preparation.total:.0%}" if status.preparation.total else ""
        made.add_row(
            Text(str(status.folder.path), overflow="fold"),
            lines_of_state(status.words, status.state, status.reason, "\n"),
            ", ".join(status.nodes),
            count_causes([cause for job in status.jobs for cause in job.restarts], "\n"),
            lines(f"{status.done:,} {status.preparation.unit}", f"{percent} of {status.preparation.total:,}"),
            f"{status.per_s:,.0f}" if status.per_s else "",
            "" if status.eta_s is None else format_duration(status.eta_s),
            Text(status.preparation.out, overflow="fold"),
        )
    hints = ["go on with: python -m launcher resume RUN"] if any(status.next for status in found) else []
    return Group(made, *([Text("\n" + "\n".join(hints), "dim")] if hints else []))


def preparation_details(status: PrepareStatus) -> RenderableType:
    """Return all that is known of a preparation."""
    preparation = status.preparation
    rows: dict[str, str | Text] = {
        "preparation": str(status.folder.path),
        "out": preparation.out,
        "state": lines_of_state(status.words, status.state, status.reason, "  "),
        "next": status.next or "",
        "done": f"{status.done:,} of {preparation.total:,} {preparation.unit}",
        "per second": f"{status.per_s:,.1f}" if status.per_s else "",
        "ETA": "" if status.eta_s is None else f"{format_duration(status.eta_s)} left, and what it takes to finish",
    }
    made = Table.grid(padding=(0, 2, 0, 0))
    for name, what in rows.items():
        if what:
            made.add_row(Text(name, "bold"), what if isinstance(what, Text) else Text(what))
    return Group(made, "", jobs_table(status))


def jobs_table(status: PrepareStatus) -> Table:
    """Return one row for each job of a preparation."""
    columns = ("job", "Slurm's", "state", "nodes", "restarts", status.preparation.unit, "per second")
    made = Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for job in status.jobs:
        made.add_row(
            job.name,
            str(job.job or ""),
            lines_of_state(job.words, job.state, job.reason, ": "),
            ", ".join(job.nodes),
            count_causes(job.restarts, ", "),
            share_words(job),
            f"{job.per_s:,.1f}" if job.per_s else "",
        )
    return made


def share_words(job: JobStatus) -> str:
    """Return how far a share is."""
    return f"{job.progress.done:,} of {job.planned.size:,}" if job.planned else ""


def lines_of_state(words: str, state: RunState, reason: str, separator: str) -> Text:
    """Return a state, and why."""
    return Text(separator).join([Text(words, style(state)), *([Text(reason)] if reason else [])])


def count_causes(causes: Sequence[str], separator: str) -> str:
    """Return how often jobs were started again, and after what."""
    counts = Counter(causes)
    words = separator.join(f"{count} × {cause}" if count > 1 else cause for cause, count in counts.items())
    return f"{len(causes)}: {words}" if causes else ""
