"""What a report tells of a run, read from its folder once; what is not there, or damaged, is left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from launcher.jobs import runs
from launcher.jobs.runs import SlurmQueue
from launcher.status.run_status import RunStatus, gather_status
from trainer.core.migration import load_json
from trainer.runs.journal import Row
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class RunFacts:
    """A run as its folder tells of it."""

    name: str
    """What the page calls it: no other run on the page is called so."""
    place: int
    """Among the runs of the page: it gives the run its colour and its mark."""
    status: RunStatus
    config: dict[str, Any]
    """config.json; empty: it cannot be read."""
    metrics: list[Row]
    system: list[Row]
    """Of logged steps."""
    nodes: list[Row]
    """Of nodes that were measured."""
    events: list[Row]
    evaluations: list[Row]
    grids: list[tuple[int, Path]]
    """Images seen and file of each sample grid, in order."""

    @property
    def run(self) -> RunFolder:
        """Its folder."""
        return self.status.run


def gather_runs(folders: Sequence[RunFolder]) -> list[RunFacts]:
    """Read runs."""
    queue = SlurmQueue()
    names = name_runs([run.path for run in folders])
    return [gather_run(run, name, k, queue) for k, (run, name) in enumerate(zip(folders, names, strict=True))]


def gather_run(run: RunFolder, name: str, place: int, queue: SlurmQueue) -> RunFacts:
    """Read a run.

    Args:
        run: its folder.
        name: what the page calls it.
        place: among the runs of the page.
        queue: is asked what becomes of its job.
    """
    system = [row for row in runs.rows_of(run.system) if is_number(row.get("images_seen"))]
    return RunFacts(
        name,
        place,
        gather_status(run, queue),
        read_settings(run.config),
        [row for row in runs.rows_of(run.metrics) if is_number(row.get("images_seen"))],
        [row for row in system if "node" not in row],
        [row for row in system if "node" in row and is_number(row.get("time"))],
        [row for row in runs.rows_of(run.events) if {"kind", "time"} <= row.keys()],
        [row for row in runs.rows_of(run.evaluations) if is_number(row.get("images_seen")) and "figures" in row],
        run.sample_grids(),
    )


def name_runs(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path, with as many of those before it as make all names different."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(some[-count:]) for some in parts]
        if len({*names}) == len(names):
            break
    return names


def read_settings(path: Path) -> dict[str, Any]:
    """Return what config.json says; nothing where it cannot be read."""
    try:
        return dict(load_json(path))
    except (OSError, ValueError, TypeError):
        return {}


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value of a row is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def points_of(rows: Sequence[Row], name: str, scale: float = 1.0) -> Iterator[tuple[float, float]]:
    """Yield images seen and value of each row that has a finite number of this name."""
    for row in rows:
        if is_number(row.get(name)):
            yield float(row["images_seen"]), scale * float(row[name])
