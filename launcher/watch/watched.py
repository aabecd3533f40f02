"""What the view shows of a run or a preparation."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from command_line.printable import printable
from launcher.jobs.attempts import to_seconds
from launcher.jobs.runs import HOME, rows_of
from launcher.prepare.progress import PrepareStatus
from launcher.prepare.view import preparation_details
from launcher.status import words
from launcher.status.escaped import Escaped
from launcher.status.facts import RunState
from launcher.status.run_status import RunStatus
from launcher.status.view import run_details
from trainer.runs.journal import EventKind, Row
from trainer.tracking.alerts import alert_of

BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Watched:
    """A run or a preparation, as a row and in full."""

    path: Path
    state: RunState
    state_words: str
    prepares: bool
    """It is a preparation, which has no pictures to show."""
    done: float | None
    """Of 1."""
    per_s: float | None
    """Images or pictures per second, now."""
    speeds: tuple[float, ...]
    """Those of the newest logged steps."""
    left_s: float | None
    alerts: tuple[str, ...]
    """Of the newest attempt, the newest last."""
    nodes_asked: str | None
    """What the job had asked for; None: it was trained on one machine."""
    details: RenderableType

    @property
    def name(self) -> str:
        """The path, without the folder that all runs lie in."""
        path = self.path.relative_to(HOME) if self.path.is_relative_to(HOME) else self.path
        return printable(path).replace("\n", " ")

    @property
    def resumable(self) -> bool:
        """Whether it waits for its user to resume it."""
        return self.state.resumable


def watched_run(status: RunStatus) -> Watched:
    """Return what is shown of a run."""
    now = status.progress
    alerts = newest_alerts(rows_of(status.run.events))
    return Watched(
        path=status.run.path,
        state=status.state,
        state_words=str(status.state),
        prepares=False,
        done=now.images_seen / now.total_images if now.total_images else None,
        per_s=status.images_per_s,
        speeds=now.recent_speeds,
        left_s=status.eta_s,
        alerts=alerts,
        nodes_asked=status.nodes_asked,
        details=Escaped(Group(*(Text(f"! {alert}", "bold red") for alert in reversed(alerts)), run_details(status))),
    )


def watched_preparation(status: PrepareStatus) -> Watched:
    """Return what is shown of a preparation."""
    total = status.preparation.total
    return Watched(
        path=status.folder.path,
        state=status.state,
        state_words=status.words,
        prepares=True,
        done=status.done / total if total else None,
        per_s=status.per_s,
        speeds=(),
        left_s=status.eta_s,
        alerts=(),
        nodes_asked=None,
        details=Escaped(preparation_details(status)),
    )


def newest_alerts(events: Sequence[Row]) -> tuple[str, ...]:
    """Return what a run's owner must know of its newest attempt, each once, with its time."""
    found: dict[str, str] = {}
    for row in events:
        if row.get("kind") == EventKind.START:
            found.clear()
        # A row of an earlier version, or of a folder from elsewhere, may lack what an alert tells.
        with suppress(KeyError, TypeError, ValueError):
            if alert := alert_of(row):
                moment = words.clock(to_seconds(row["time"]))
                found.setdefault(f"{alert.title}: {alert.text}", moment)
    return tuple(printable(f"{moment} {text}") for text, moment in found.items())


def changes(before: Mapping[str, Watched], found: Mapping[str, Watched]) -> Iterator[tuple[str, bool]]:
    """Yield what is new since the look before, and whether it is wrong: the states of runs, and alerts."""
    for key, now in found.items():
        if not (then := before.get(key)):
            continue
        if now.state_words != then.state_words:
            yield f"{now.name}: {then.state_words} → {now.state_words}", False
        for alert in now.alerts:
            if alert not in then.alerts:
                yield f"{now.name}: {alert}", True


def summary(found: Collection[Watched], looked: str) -> str:
    """Return how many runs there are, and when they were looked at; empty: not yet."""
    if not looked:
        return "looking"
    live = sum(watched.state.live for watched in found)
    runs = f"{len(found)} run{'' if len(found) == 1 else 's'}, {live} live"
    return f"{runs if found else f'no runs under ./{HOME} any more'}, {looked}"


def sparkline(speeds: Sequence[float], width: int) -> str:
    """Return the newest speeds as a line of blocks: the highest is the fastest of them, and the lowest next to none."""
    # From nothing, not from the slowest: else a speed that trembles by a percent looks like one that breaks down.
    shown = [max(0.0, speed) for speed in speeds[-width:]]
    top = max(shown, default=0.0)
    return "".join(BLOCKS[min(7, int(8 * speed / top))] for speed in shown) if top else ""


def clock() -> str:
    """Return the time of now, to the second."""
    return time.strftime("%H:%M:%S")
