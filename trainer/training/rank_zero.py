"""What rank 0 does besides training: it keeps the run folder. On the other ranks the same calls do nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import torch

from shards.dataset.stream import Reader
from trainer.config.config import Config
from trainer.core.step_phases import StepTimes, clock_of
from trainer.core.stopping import Outcome
from trainer.distributed.collective import on_main
from trainer.distributed.numerical_environment import environment_differences
from trainer.distributed.world import World
from trainer.gan.async_scalars import Row
from trainer.gan.state import TrainState
from trainer.launch.job_context import JobContext
from trainer.losses.objectives import OBJECTIVES
from trainer.runs import journal
from trainer.runs.config_loading import write_config
from trainer.runs.description import write_description
from trainer.runs.init_from import PretrainedWeights
from trainer.runs.journal import EventKind
from trainer.runs.lease import Lease, Loss
from trainer.runs.run_folder import RunFolder
from trainer.tracking.console import Reporter
from trainer.tracking.held_rows import HeldRows
from trainer.tracking.stalls import Stalls
from trainer.tracking.tracker import Tracker
from trainer.training.collapse_judgements import CollapseJudgements
from trainer.training.due import Signal, Timer, read_signals
from trainer.training.measurements import measurements_of
from trainer.training.node_figures import NodeFigures, node_figures
from trainer.training.recorder import Recorder
from trainer.training.sample_grids import Request, SampleGrids
from trainer.training.saving import Saving
from trainer.training.step_trace import StepTrace, step_trace

log = logging.getLogger(__name__)

LAST_ROWS_S, INTERRUPTED_ROWS_S = 30.0, 5.0  # that W&B has to take the last rows


class RankZero(Recorder):
    """The run folder in the hands of one process: lease, journals, checkpoints, sample grids.

    Args:
        config, run: of the run.
        reader: of the training split.
        device: where images are generated.
        context: the job that this process belongs to.
        nodes: measures this node, and gets the figures of the others.
        trace: of this rank, if one is wanted.

    Raises:
        Refused: another process trains in this folder, or it cannot be written.
    """

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        reader: Reader,
        device: torch.device,
        context: JobContext,
        nodes: NodeFigures,
        trace: StepTrace,
    ) -> None:
        super().__init__(run, nodes, trace)
        self.config, self.index = config, reader.index
        self.lease = Lease(run, context.owner, context.attempt, self.on_lease_lost)
        # Only under the lease: settings of a process that is refused must not replace those of the one that trains.
        write_config(run, config)
        self.tracker = Tracker(run, config.tracking)
        self.total = config.images_to_see(reader.split.samples)
        self.times, self.stalls = StepTimes(clock_of(device)), Stalls()
        self.reporter = Reporter(self.tracker, self.total, reader.split.samples, self.times, self.stalls)
        self.rows = HeldRows(self.tracker.metrics)
        self.saving = Saving(config, run, device, self.tracker, self.stalls, self.before_manifest)
        self.measurements = measurements_of(config, run, device, lambda: SampleGrids(config, run, reader, device))
        logistic = OBJECTIVES[config.objective].logistic
        self.collapse = CollapseJudgements(run, self.tracker, self.stalls, self.measurements, logistic)
        self.log_timer = Timer(config.log_every_s)
        self.known_damage = {
            r["sample"] for r in journal.read_rows(run.events) if r.get("kind") == EventKind.DAMAGED_SAMPLE
        }

    def newest_checkpoint(self) -> Path | None:
        """Return the newest whole checkpoint."""
        return self.saving.newest()

    def last_anchor(self, healthy: bool) -> Path | None:
        """Return the checkpoint that a rollback goes to."""
        return self.saving.last_anchor(healthy)

    def begin(
        self, state: TrainState, environments: Sequence[Mapping[str, object]], pretrained: PretrainedWeights | None
    ) -> None:
        """Compare the numerical environment with that of the last attempt, and open the journals."""
        reached = journal.last_row(self.run.metrics).get("images_seen", 0)  # before anything is cut back
        before = [row for row in journal.read_rows(self.run.events) if row.get("kind") == EventKind.ENVIRONMENT]
        for rank, other in enumerate(environments[1:], 1):
            if changed := environment_differences(environments[0], other):
                log.warning("rank %d computes in another environment than rank 0: %s", rank, "; ".join(changed))
        if state.images_seen and before and (changed := environment_differences(before[-1], environments[0])):
            log.warning("this environment differs from the last one, and so may the bits: %s", "; ".join(changed))
            self.tracker.new_segment(state.images_seen, "environment")
        if lost := max(0, reached - state.images_seen):
            log.warning("%s images were seen after the last durable checkpoint, and are seen again", f"{lost:,}")
        write_description(self.run, self.config, self.index)
        self.tracker.start(state.images_seen, owner=self.lease.mine.owner, lost_images=lost)
        self.tracker.event(EventKind.ENVIRONMENT, **environments[0], processes=len(environments))
        if pretrained:
            log.info("%s", pretrained.words())
            taken, left = pretrained.taken(), pretrained.left
            self.tracker.event(EventKind.INITIALISED, source=pretrained.source, taken=taken, left=left)
        self.reporter.images_seen = state.images_seen
        self.nodes.start(self.reporter.log_node)

    @contextmanager
    def measure_step(self) -> Iterator[None]:
        """Measure where the time of the step inside goes."""
        with self.trace.step(), self.times.step():  # what writes a trace is no part of the step
            yield

    def record(self, state: TrainState, rows: Sequence[Row]) -> None:
        """Record steps, and have the sample grid made if it is due."""
        self.saving.collect()
        self.reporter.images_seen = state.images_seen
        self.reporter.stall_s = self.saving.stall_s
        measured = self.collapse.columns_of(state.images_seen)
        due = self.config.passed(self.config.interval("sample"), state.images_seen)
        due = due or (state.images_seen >= self.total and self.config.generates_grids)
        if due or Signal.SAMPLE in read_signals(rows):
            with self.stalls.during("samples"):
                request = Request("samples", state.images_seen, len(state.rollbacks))
                measured.append(grid := self.measurements.ask(request, state.ema))
            if not grid.done():  # else its distance is in the status line
                grid.add_done_callback(partial(tell_distance, state.images_seen))
        for images_seen, scalars in rows:
            later = measured if images_seen == state.images_seen else []
            logged = self.log_timer.is_due() or self.config.passed(self.config.interval("log"), images_seen)
            if later or logged:
                self.log_timer.restart()
                known = [columns for one in later if one.done() for columns in one.result().items()]
                self.rows.add(self.reporter.log(images_seen, scalars, dict(known)), later)
        self.rows.write_known()

    def measure_collapse(self, state: TrainState) -> None:
        """Begin a measurement for the collapse monitor."""
        self.collapse.measure(state)

    def judged(self) -> Mapping[str, Any]:
        """Wait for that measurement, and return the fields of the monitor's state after it."""
        return self.collapse.judged()

    def report_damage(self, damage: Iterable[Mapping[int, str]]) -> None:
        """Record which samples are damaged."""
        for sample, problem in (item for of_rank in damage for item in of_rank.items()):
            if sample not in self.known_damage:
                self.known_damage.add(sample)
                log.warning("sample %d is damaged and replaced by the next one: %s", sample, problem)
                self.tracker.event(EventKind.DAMAGED_SAMPLE, sample=sample, problem=problem)

    def save(self, state: TrainState, wait: bool = False) -> bool:
        """Save the state."""
        images_seen, judgement, monitor = state.images_seen, self.collapse.last, state.monitor

        def later() -> dict[str, Any]:
            self.rows.write_until(images_seen)
            return self.collapse.values(judgement, monitor)

        return self.saving.save(state, wait, later)

    def wait_for_checkpoint(self) -> None:
        """Wait for the last save."""
        self.saving.collect(wait=True)

    def rolled_back(self, state: TrainState) -> bool:
        """Record a rollback, and save."""
        rollback = state.rollbacks[-1]
        besides = f" and another {rollback['change']}" if "change" in rollback else ""
        log.warning(
            "%s at %d images: back to %d, with other draws%s",
            rollback["why"],
            rollback["from"],
            rollback["to"],
            besides,
        )
        self.collapse.forget()
        self.rows.write_until(inf)
        self.tracker.new_segment(state.images_seen, "rollback")
        self.tracker.event(EventKind.ROLLBACK, **rollback)
        return self.save(state, wait=True)

    def before_manifest(self) -> None:
        """Make durable what a checkpoint promises; OSError if this process must not promise anything."""
        # A run that resumes from this checkpoint never writes the rows before it again.
        self.tracker.sync()
        if lost := self.lease.loss():
            raise OSError(lost.why)

    def on_lease_lost(self, lost: Loss) -> None:
        """End this process: another one trains here, or the folder was moved, and its paths lead nowhere."""
        log.error("%s; this process ends", lost.why)
        if lost.moved:  # the journal is open, wherever it lies; if the run is another's, so is its journal
            self.tracker.event(EventKind.END, outcome="failed", signal=None, problem=lost.why)
        # From the lease's thread: the main one may be waiting in a collective, where no exception reaches it.
        os._exit(Outcome.FAILED)

    def end(self, outcome: str, signal: str | None, **facts: object) -> None:
        """Close everything, and release the lease."""
        super().end(outcome, signal)  # first: it writes into the journals
        self.saving.close(outcome == "finished")
        with suppress(OSError):  # measured by a process that has ended, as was said; the next attempt writes these rows
            self.rows.write_known()  # after an orderly end that is all of them
        self.measurements.close()
        # Who was asked to stop has little time; what W&B lacks then is sent by the next attempt.
        self.tracker.close(outcome, signal, LAST_ROWS_S if outcome == "finished" else INTERRUPTED_ROWS_S, **facts)
        self.lease.release()  # last: until here this process still writes


def tell_distance(images_seen: int, grid: Future[dict[str, float]]) -> None:
    """Say what was measured of a sample grid that came later than its row."""
    if not grid.cancelled() and not grid.exception():
        for name, value in grid.result().items():
            log.info("the grid of %s images: %s %.1f", f"{images_seen:,}", name, value)


def record_on(
    world: World, config: Config, run: RunFolder, reader: Reader, device: torch.device, context: JobContext
) -> Recorder:
    """Return this rank's recorder; the arguments are those of RankZero.

    Raises:
        Refused: on every rank, if rank 0 was refused.
    """
    # What `on_main` returns is sent to all ranks, and open files cannot be: so rank 0 puts it here.
    opened: list[Recorder] = []
    nodes, trace = node_figures(world, config.system_every_s), step_trace(config, run, world)
    on_main(world, lambda: opened.append(RankZero(config, run, reader, device, context, nodes, trace)))
    return opened[0] if opened else Recorder(run, nodes, trace)
