"""What only the main process does: it keeps the run folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from shards.dataset.stream import Reader, Samples
from trainer.collapse.monitor_state import Record, State, reasons
from trainer.config.config import Config
from trainer.core.stopping import Outcome
from trainer.distributed.numerical_environment import differences
from trainer.gan.state import TrainState
from trainer.launch.job_context import Cluster
from trainer.runs import journal
from trainer.runs.checkpoint import Checkpoint, Checkpoints, Saved, newest_whole, set_aside
from trainer.runs.config_loading import write_config
from trainer.runs.init_from import Initial, begins_at
from trainer.runs.lease import Lease, Loss
from trainer.runs.run_folder import RunFolder
from trainer.sampling.sampler import Painter, Pictures, beside, real_samples
from trainer.tracking.console import Reporter
from trainer.tracking.tracker import Tracker
from trainer.training.background_evaluation import Evaluations

if TYPE_CHECKING:
    from trainer.collapse.collapse_metrics import Witness
    from trainer.metrics.sliced_wasserstein import SlicedWasserstein

log = logging.getLogger(__name__)

GRID = 64  # pictures on each side of the sample grid
FAREWELL_S, HASTE_S = 30.0, 5.0  # that W&B has to take the last rows
DISTANCE = 512  # pictures on each side of the sliced Wasserstein distance


class Desk:
    """The run folder in the hands of one process: lease, journals, checkpoints, sample grids.

    Args:
        config, run: of the run.
        reader: of the training split.
        device: where samples are painted.
        cluster: the job that this process belongs to.

    Raises:
        Refused: another process trains in this folder, or it cannot be written.
    """

    def __init__(self, config: Config, run: RunFolder, reader: Reader, device: torch.device, cluster: Cluster) -> None:
        self.config, self.run = config, run
        self.lease = Lease(run, cluster.owner, cluster.attempt, self.lose)
        write_config(run, config)
        self.tracker = Tracker(run, config.tracking)
        self.reporter = Reporter(self.tracker, config.images_to_see(reader.split.samples), reader.split.samples)
        self.checkpoints = Checkpoints(run.checkpoints, config.checkpoint, self.promise)
        self.evaluations = Evaluations(run, config.metrics, self.tracker)
        self.checkpoints.kept = self.evaluations.kept
        self.checkpoints.spared = self.is_anchor, self.is_healthy_anchor
        self.reader, self.device = reader, device
        self.known_damage = {r["sample"] for r in journal.rows(run.events) if r.get("kind") == "damaged sample"}
        self.saved: tuple[int, int] | None = None  # the last state whose saving began
        self.seen: Pictures  # at the sentinel's last look

    @cached_property
    def painter(self) -> Painter:
        """Paints; made when first needed, as are the reals beside, so that a resumed run trains at once."""
        return Painter(self.config, self.device)

    @cached_property
    def real(self) -> Samples:
        """The same real pictures in every grid; the painted ones are of their classes."""
        return real_samples(self.reader, DISTANCE, self.config.seed)

    @cached_property
    def witness(self) -> Witness:
        """Compares what is painted with pictures of the data, all of them different ones."""
        from trainer.collapse.collapse_metrics import MOST, Witness  # as below

        number = min(MOST, self.reader.split.samples // 2)
        real = real_samples(self.reader, 2 * number, self.config.seed)
        return Witness(real.images, real.labels)

    @cached_property
    def distance(self) -> SlicedWasserstein:
        """Measures against the reals."""
        from trainer.metrics.sliced_wasserstein import SlicedWasserstein  # a second of imports, when first needed

        return SlicedWasserstein(self.real.images)

    def newest(self, wanted: Callable[[Checkpoint], bool] = lambda _: True) -> Path | None:
        """Return the newest whole checkpoint that is wanted, having set aside the damaged ones that are newer."""

        def aside(checkpoint: Checkpoint, problem: str) -> None:
            moved = set_aside(checkpoint)
            log.warning("checkpoint %s is damaged: %s; set aside as %s", checkpoint.path.name, problem, moved.name)
            self.tracker.event("damaged checkpoint", name=checkpoint.path.name, problem=problem, moved_to=moved.name)

        found = newest_whole(self.run.checkpoints, aside, wanted)
        return found.path if found else None

    def anchor(self, healthy: bool) -> Path | None:
        """Return the last anchor, or healthy one: neither stops nor operational settings decide where it lies."""
        return self.newest(self.is_healthy_anchor if healthy else self.is_anchor)

    def is_anchor(self, checkpoint: Checkpoint) -> bool:
        """Tell whether each run of these settings has saved here."""
        seen = checkpoint.images_seen
        return seen == self.first_images or self.config.due(self.config.anchor_every_images, seen)

    @cached_property
    def first_images(self) -> int:
        """The images seen at the state that the run began with."""
        return begins_at(self.run)

    def is_healthy_anchor(self, checkpoint: Checkpoint) -> bool:
        """Tell whether the sentinel had seen nothing bad there, besides."""
        return self.is_anchor(checkpoint) and checkpoint.healthy()

    def begin(
        self, state: TrainState, environments: Sequence[Mapping[str, object]], initial: Initial | None = None
    ) -> None:
        """Start this attempt: compare the numerical environment with the last one, and open the journals.

        Args:
            state: that it begins with.
            environments: of all ranks.
            initial: what a new run has taken over from another one.
        """
        reached = journal.last(self.run.metrics).get("images_seen", 0)  # before anything is cut back
        before = [row for row in journal.rows(self.run.events) if row.get("kind") == "environment"]
        for rank, other in enumerate(environments[1:], 1):
            if changed := differences(environments[0], other):
                log.warning("rank %d computes in another environment than rank 0: %s", rank, "; ".join(changed))
        if state.images_seen and before and (changed := differences(before[-1], environments[0])):
            log.warning("this environment differs from the last one, and so may the bits: %s", "; ".join(changed))
            self.tracker.new_segment(state.images_seen, "environment")
        if lost := max(0, reached - state.images_seen):
            log.warning("%s images were seen after the last durable checkpoint, and are seen again", f"{lost:,}")
        self.tracker.start(state.images_seen, owner=self.lease.mine.owner, lost_images=lost)
        self.tracker.event("environment", **environments[0], processes=len(environments))
        if initial:
            self.report_initial(initial)

    def report_initial(self, initial: Initial) -> None:
        """Say what was taken over from another run, and what was not."""
        log.info("%s", initial.words())
        self.tracker.event("initialised", source=initial.source, taken=initial.taken(), left=initial.left)

    def report(self, images_seen: int, scalars: Mapping[str, float]) -> None:
        """Record a step."""
        self.reporter.log(images_seen, scalars)

    def paint(self, state: TrainState) -> dict[str, float]:
        """Write the sample grid, and return the distance between real and painted pictures."""
        self.painter.load(state.ema)
        labels = self.real.labels.tolist() if self.config.network.g_conditional else None
        fake = self.painter.paint(DISTANCE, self.config.seed, "sample", labels=labels)
        self.show(self.run.sample(state.images_seen), fake)
        return {f"swd_{DISTANCE}": self.distance(fake)}

    def show(self, target: Path, fake: Pictures) -> None:
        """Write a picture: reals beside painted ones."""
        picture = beside(self.real.images[:GRID], fake[:GRID], columns=8)
        try:
            target.parent.mkdir(exist_ok=True)
            picture.save(target.with_suffix(".tmp"), format="png")
            target.with_suffix(".tmp").rename(target)
        except OSError as error:
            log.error("%s was not written: %s", target, error.strerror)

    def look(self, state: TrainState) -> dict[str, float]:
        """Return what can be seen of collapse in what the generator paints now: not its average, which hides it."""
        self.painter.load({name: p.detach() for name, p in state.generator.named_parameters()})
        labels = self.witness.own_labels.tolist() if self.config.network.g_conditional else None
        self.seen = self.painter.paint(self.witness.number, self.config.seed, "sentinel", labels=labels)
        return self.witness(self.seen)

    def alarm(self, state: TrainState, record: Record, evidence: Mapping[str, float]) -> None:
        """Say that the run has become worse, and show what was seen."""
        what = State(record.state).name.lower()
        why = "; ".join(reasons(evidence, state.images_seen, record.best.get("diversity", 0.0)))
        seen = self.run.alarm(state.images_seen, len(state.rollbacks))
        self.show(seen, self.seen)
        log.warning("SENTINEL: %s at %s images: %s; see %s", what, f"{state.images_seen:,}", why, seen)
        facts = {"images_seen": state.images_seen, "picture": seen.name, "evidence": dict(evidence)}
        self.tracker.event("sentinel", state=what, problem=why, **facts)

    def report_damage(self, damage: Mapping[int, str]) -> None:
        """Say, once for each, which samples are damaged."""
        for sample, problem in damage.items():
            if sample not in self.known_damage:
                self.known_damage.add(sample)
                log.warning("sample %d is damaged and replaced by the next one: %s", sample, problem)
                self.tracker.event("damaged sample", sample=sample, problem=problem)

    def save(self, state: TrainState, wait: bool = False) -> bool:
        """Save the state, in the background unless told to wait; False when waiting showed that it is not durable."""
        key = (state.images_seen, len(state.rollbacks))
        durable = self.collect(wait=True)  # one at a time: the snapshot's memory is reused
        if key != self.saved or not durable:
            self.checkpoints.save(state.tensors(), state.scalars())
            self.saved = key
        return self.collect(wait=True) if wait else True

    def collect(self, wait: bool = False) -> bool:
        """Record what became of the last save; False if it failed."""
        self.evaluations.collect()
        result = self.checkpoints.result(wait)
        if isinstance(result, Saved):
            self.reporter.stall_s = result.stall_s
            seconds = {"stall_s": round(result.stall_s, 4), "write_s": round(result.write_s, 4)}
            self.tracker.event("checkpoint", images_seen=result.images_seen, **seconds)
            self.evaluations.saved()
        elif isinstance(result, OSError):
            log.error("THE CHECKPOINT WAS NOT WRITTEN: %s; training goes on, the last one stays", reason(result))
            self.tracker.event("checkpoint failed", problem=reason(result))
            return False
        return True

    def roll_back(self, state: TrainState) -> bool:
        """Record the rollback that `state` has just made, before training goes on; False if it is not durable."""
        made = state.rollbacks[-1]
        besides = f" and another {made['change']}" if "change" in made else ""
        log.warning("%s at %d images: back to %d, with other draws%s", made["why"], made["from"], made["to"], besides)
        self.tracker.new_segment(state.images_seen, "rollback")
        self.tracker.event("rollback", **made)
        return self.save(state, wait=True)

    def promise(self) -> None:
        """Make durable what a checkpoint promises; OSError if this process must not promise anything."""
        self.tracker.sync()
        if lost := self.lease.loss():
            raise OSError(lost.why)

    def lose(self, lost: Loss) -> None:
        """End this process: another one trains here, or the folder was moved, and its paths lead nowhere."""
        log.error("%s; this process ends", lost.why)
        if lost.moved:  # the journal is open, wherever it lies; if the run is another's, so is its journal
            self.tracker.event("end", outcome="failed", signal=None, problem=lost.why)
        os._exit(Outcome.FAILED)

    def end(self, outcome: str, signal: str | None, **facts: object) -> None:
        """Close everything; `facts` are recorded besides."""
        self.checkpoints.close()
        self.evaluations.close(outcome == "finished")
        # Who was asked to stop has little time; what W&B lacks then is sent by the next start.
        self.tracker.close(outcome, signal, FAREWELL_S if outcome == "finished" else HASTE_S, **facts)
        self.lease.release()


def reason(error: OSError) -> str:
    """Return what an error says of itself, in words."""
    return error.strerror or str(error)
