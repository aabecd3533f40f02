"""What the loop calls on every rank; rank 0 answers with what keeps the run folder (rank_zero.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from trainer.gan.async_scalars import Row
from trainer.gan.state import TrainState
from trainer.runs.init_from import PretrainedWeights
from trainer.runs.journal import EventKind, Journal, event_row
from trainer.runs.run_folder import RunFolder
from trainer.training.node_figures import NodeFigures
from trainer.training.step_trace import StepTrace


class Recorder:
    """What the loop calls on every rank; it does nothing. Rank 0 has a RankZero in its place.

    Args:
        run: of the run.
        nodes: measures this node, if this rank is the one that does.
        trace: of this rank, if one is wanted.
    """

    def __init__(self, run: RunFolder, nodes: NodeFigures, trace: StepTrace) -> None:
        self.run, self.nodes, self.trace = run, nodes, trace

    def newest_checkpoint(self) -> Path | None:
        """Return the newest whole checkpoint; asked of rank 0 only."""
        return None

    def last_anchor(self, healthy: bool) -> Path | None:
        """Return the checkpoint that a rollback goes to; asked of rank 0 only."""
        return None

    def begin(
        self, state: TrainState, environments: Sequence[Mapping[str, object]], pretrained: PretrainedWeights | None
    ) -> None:
        """Start this attempt.

        Args:
            state: that it begins with.
            environments: the numerical environment of each rank.
            pretrained: what a new run has taken over from another one.
        """
        self.nodes.start()

    def measure_step(self) -> AbstractContextManager[None]:
        """Measure where the time of the step inside goes, on rank 0, and trace it on the rank that is to."""
        return self.trace.step()

    def record(self, state: TrainState, rows: Iterable[Row]) -> None:
        """Record the steps whose scalars have arrived, and have sample grids made that are due.

        Args:
            state: after the last step.
            rows: of the steps.
        """

    def measure_collapse(self, state: TrainState) -> None:
        """Begin a measurement for the collapse monitor."""

    def judged(self) -> Mapping[str, Any]:
        """Wait for that measurement, and return the fields of the monitor's state after it; asked of rank 0 only."""
        return {}

    def report_damage(self, damage: Iterable[Mapping[int, str]]) -> None:
        """Record, once for each, which samples are damaged; a mapping of each rank."""

    def report_stall(self, what: str, places: list[str]) -> None:
        """Record that training stands still: whichever rank has found it writes the event itself."""
        Journal(self.run.events).append(event_row(EventKind.STALLED, problem=what, places=places))

    def save(self, state: TrainState, wait: bool = False) -> bool:
        """Save the state, in the background unless told to wait; False when waiting showed that it is not durable."""
        return True

    def wait_for_checkpoint(self) -> None:
        """Wait until the last save is durable, or has failed."""

    def rolled_back(self, state: TrainState) -> bool:
        """Record the rollback that `state` has just had, before training goes on; False if it is not durable."""
        return True

    def end(self, outcome: str, signal: str | None, **facts: object) -> None:
        """Close everything; `facts` are recorded besides."""
        self.nodes.close()
        self.trace.stop()
