"""The loop around the step: what happens when, and that all processes do it together."""

from __future__ import annotations

import logging
from enum import Enum, auto
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from shards.dataset.index import Index
from shards.dataset.stream import Reader
from trainer.collapse.monitor import Watch, in_words
from trainer.collapse.rollback_changes import amended, fit, next_change
from trainer.config.config import Config
from trainer.config.groups import LEAST
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.core.migration import identities
from trainer.core.randomness import Draws
from trainer.core.stopping import Outcome
from trainer.distributed.collective import gather, on_main
from trainer.distributed.numerical_environment import environment
from trainer.gan.assembly import assemble, reduce_as_asked, world_of
from trainer.gan.async_scalars import LateScalars, Row
from trainer.gan.batches import Drawer, Feed
from trainer.gan.optimizers import update_average
from trainer.gan.state import TrainState
from trainer.launch.job_context import Cluster
from trainer.runs.checkpoint import Checkpoint, Damaged
from trainer.runs.init_from import read_initial, take_over
from trainer.runs.journal import Journal, event
from trainer.runs.run_folder import RunFolder
from trainer.training.rank_zero import Desk
from trainer.training.watchdog import Watchdog

log = logging.getLogger(__name__)


class Failed(Exception):
    """The run cannot go on; the message says why."""


class Diverged(Failed):
    """It cannot go on as it is, however often it is started again."""


class Verdict(Enum):
    """What the scalars of a step say about the next one."""

    GO_ON = auto()
    STOP = auto()
    ROLL_BACK = auto()


ANSWERS = {"stop": Verdict.STOP, "roll-back": Verdict.ROLL_BACK}  # to what the sentinel wants


class Training:
    """One attempt at a run, from the newest checkpoint to the end or to a stop.

    Args:
        config, run: of the run; every process is given the same.
        index: the dataset.
        accelerator: device, process group and precision.
        cluster: the job that this process belongs to.
    """

    def __init__(
        self, config: Config, run: RunFolder, index: Index, accelerator: Accelerator, cluster: Cluster
    ) -> None:
        self.config, self.run, self.cluster = config, run, cluster
        self.world, self.device = world_of(accelerator), accelerator.device
        self.damage: dict[int, str] = {}
        self.reader = Reader(index, "train", self.damage.__setitem__)
        self.total = config.images_to_see(self.reader.split.samples)
        self.saves = config.checkpoint_every_images, config.anchor_every_images
        self.looks = config.sentinel.every_images if self.reader.split.samples >= LEAST else 0
        self.intervals = config.sample_every_images, *self.saves, self.looks
        self.desk: Desk | None = None
        on_main(self.world, self.open_desk)
        self.newest: Path | None = on_main(self.world, self.desk.newest if self.desk else None)
        self.accelerator = accelerator
        self.play(config, index.hash, draw=self.newest is None)
        desk = self.desk
        measure = (lambda: desk.look(self.state)) if desk else None
        alert = (lambda record, evidence: desk.alarm(self.state, record, evidence)) if desk else None
        self.watch = Watch(config, self.world, measure, alert)
        self.broken_at = 0  # images seen at the last step that gave NaN or Inf
        self.late = LateScalars(self.device)
        self.watchdog = Watchdog(self.world, cluster.place, config.stall_after_s, self.report_stall)
        self.feed = Feed(config, self.world, self.device, self.reader, run.plan if config.record_samples else None)

    def play(self, config: Config, dataset: str, draw: bool) -> None:
        """Make a state, and a step that trains it, of the run's settings, or of those that a rollback changed."""
        self.played = config
        self.state = TrainState.create(config, dataset, self.device, draw)
        self.state.identities = identities(self.config)
        reduce = reduce_as_asked(config, self.accelerator)
        self.step = assemble(config, self.state, reduce, self.accelerator.autocast)

    def open_desk(self) -> None:
        """Take the run folder into this process's hands."""
        self.desk = Desk(self.config, self.run, self.reader, self.device, self.cluster)

    def train(self) -> Outcome:
        """Train until all pictures were seen, or a stop is asked for.

        Raises:
            Failed: NaN or Inf came back after the allowed rollbacks, or a state that must be durable is not.
        """
        self.resume()
        if self.watch.wants(self.state.sentinel) == "roll-back":  # the policy under which it collapsed was another
            self.roll_back(in_words(self.state.sentinel))
        steps = self.feed.steps(self.state.images_seen, self.draws())
        outcome = Outcome.FINISHED
        while self.state.images_seen < self.total:
            scalars = self.step(next(steps), self.cluster.stop)
            self.state.images_seen += self.config.step_images
            self.watchdog.step(self.state.images_seen)
            self.average()
            drain = any(map(self.due, self.intervals))
            rows = self.late.push(self.state.images_seen, scalars, drain or self.state.images_seen >= self.total)
            verdict = self.judge(rows)
            if verdict is Verdict.STOP:  # nothing is saved that was not judged, and no row is left behind
                rows += (rest := self.late.arrived())
                verdict = Verdict.ROLL_BACK if self.judge(rest) is Verdict.ROLL_BACK else Verdict.STOP
            seen: dict[str, float] = {}
            if verdict is not Verdict.ROLL_BACK and self.due(self.looks):
                self.state.sentinel, seen = self.watch.look(self.state.sentinel, self.state.images_seen)
                verdict = ANSWERS.get(self.watch.wants(self.state.sentinel), verdict)
            if verdict is Verdict.ROLL_BACK:
                self.roll_back(in_words(self.state.sentinel) if seen else None)
                steps = self.feed.steps(self.state.images_seen, self.draws())
                continue
            self.record(rows, seen)
            if verdict is Verdict.STOP and self.state.images_seen < self.total:
                outcome = Outcome.INTERRUPTED
                break
        self.must_be_durable(self.desk.save(self.state, wait=True) if self.desk else True)
        self.refuse_collapsed()
        return outcome

    def resume(self) -> None:
        """Take up the newest whole checkpoint, or save the state of a run that begins."""
        environments = gather(self.world, environment(self.device))
        initial = None
        if self.newest is not None:
            self.load(self.newest)
            log.info("resuming at %s images from %s", f"{self.state.images_seen:,}", self.newest.name)
        elif self.config.init_hash:  # else the run starts from the weights that were drawn
            initial = read_initial(self.run, self.config.init_hash)
            take_over(self.state, initial, self.config.seed)
        self.refuse_collapsed()
        if self.desk:
            self.desk.begin(self.state, environments, initial)
            if self.newest is None:
                self.desk.save(self.state)

    def refuse_collapsed(self) -> None:
        """Refuse to train on a run that has collapsed or diverged, if that is the policy.

        Raises:
            Refused: naming the ways on.
        """
        if self.watch.wants(self.state.sentinel) != "stop":
            return
        healthy = on_main(self.world, partial(self.desk.anchor, healthy=True) if self.desk else None)
        back = f", or with roll-back to go on from the healthy checkpoint {healthy.name}" if healthy else ""
        raise Refused(
            f"the run has {in_words(self.state.sentinel)} by {self.state.images_seen:,} images (the sentinel's rows in "
            f"events.jsonl say why); resume it with --sentinel.policy tell to go on as it is{back}"
        )

    def load(self, path: Path) -> None:
        """Take over a checkpoint that the main process has found whole."""
        try:
            tensors, values = Checkpoint(path, 0, 0).read()
        except Damaged as error:
            raise Failed(f"checkpoint {path} is whole for the main process, but not here: {error}") from error
        if (config := amended(self.config, values["rollbacks"])) != self.played:
            self.play(config, self.state.dataset, draw=False)
            self.feed.drawer = Drawer(config)
        self.state.load(tensors, values, str(path))

    def draws(self) -> Draws:
        """Return what the steps from here on draw."""
        return Draws(self.config.seed, len(self.state.rollbacks))

    def average(self) -> None:
        """Move the generator's average."""
        weights = [p.detach() for p in self.state.generator.parameters()]
        update_average(
            list(self.state.ema.values()),
            weights,
            self.config.step_images,
            self.state.images_seen,
            self.config.optimizer,
        )

    def due(self, every_images: int, images_seen: int | None = None) -> bool:
        """Tell whether the step that ended at `images_seen`, or just now, passed a multiple of `every_images`."""
        return self.config.due(every_images, self.state.images_seen if images_seen is None else images_seen)

    def judge(self, rows: list[Row]) -> Verdict:
        """Decide from reduced scalars, which are the same for all processes."""
        watched = ["loss_d", "loss_g"]
        if self.config.mixed_precision != "fp16":  # there, an overflow of gradients is the scaler's to answer
            watched += ["grad_norm_d", "grad_norm_g"]
        for images_seen, scalars in rows:
            if not all(isfinite(scalars[name]) for name in watched):
                self.broken_at = images_seen
                return Verdict.ROLL_BACK
            if self.looks:
                self.state.sentinel = self.state.sentinel.step(scalars)
            if scalars["replaced"]:
                self.report_damage()
        return Verdict.STOP if any(scalars["stop"] for _, scalars in rows) else Verdict.GO_ON

    def report_damage(self) -> None:
        """Bring the damaged samples that any process met to the main process's attention."""
        found = gather(self.world, dict(self.damage))
        self.damage.clear()
        if self.desk:
            for damage in found:
                self.desk.report_damage(damage)

    def report_stall(self, what: str, places: list[str]) -> None:
        """Record that training stands still, whichever rank has found it."""
        Journal(self.run.events).append(event("stalled", problem=what, places=places))

    def record(self, rows: list[Row], seen: dict[str, float]) -> None:
        """Log, paint and save what is due: the main process only."""
        if not self.desk:
            return
        self.desk.collect()
        painted = dict(seen)
        if self.due(self.config.sample_every_images) or self.state.images_seen >= self.total:
            painted |= self.desk.paint(self.state)
        for images_seen, scalars in rows:
            now = painted if images_seen == self.state.images_seen else {}
            if now or self.due(self.config.log_every_images, images_seen):
                self.desk.report(images_seen, scalars | now)
        if any(map(self.due, self.saves)):
            self.desk.save(self.state)

    def roll_back(self, sentinel: str | None) -> None:
        """Go back to the last anchor, and on from there with other draws and what the policy changes.

        Args:
            sentinel: what it says of the run, if it wants this; None: NaN or Inf.
        """
        start, made = self.state.images_seen if sentinel else self.broken_at, self.state.rollbacks
        why = sentinel or "NaN or Inf"
        if len(made) >= self.config.max_rollbacks:
            raise Diverged(f"{why} at {start:,} images, after {len(made)} rollbacks. {self.ways_on()}")
        if self.desk:
            self.desk.collect(wait=True)
        path = on_main(self.world, partial(self.desk.anchor, healthy=bool(sentinel)) if self.desk else None)
        if path is None:
            raise Failed(f"{why} at {start} images, and there is no whole checkpoint to go back to")
        self.load(path)
        self.late.clear()
        rollback: dict[str, Any] = {"from": start, "to": self.state.images_seen, "why": why}
        if self.config.sentinel.policy == "roll-back":
            before = sum("change" in earlier for earlier in made)
            in_force = amended(self.config, made)
            rollback["change"] = next_change(in_force, self.config.sentinel.changes, before)
        self.amend([*made, rollback])
        self.must_be_durable(self.desk.roll_back(self.state) if self.desk else True)

    def ways_on(self) -> str:
        """Say what can be done about a run that diverges again and again."""
        path, o = self.run.path, self.played.optimizer
        rates = "--optimizer.g-lr", f"{o.g_lr / 2:g}", "--optimizer.d-lr", f"{o.d_lr / 2:g}"
        lower = command("launcher", "resume", path, "--as", f"{path}-lower-rates", *rates)
        again = command("launcher", "resume", path, "--max-rollbacks", self.config.max_rollbacks + 3)
        return (
            "Go on from the last good state as a new run with other settings, such as lower rates: "
            f"{lower}; or try other draws: {again}"
        )

    def amend(self, rollbacks: list[dict[str, Any]]) -> None:
        """Go on as these rollbacks want: what the state that was gone back to did not know of is put in force again."""
        config = amended(self.config, rollbacks)
        if config != self.played:
            tensors, values = self.state.tensors(), self.state.scalars()
            self.play(config, self.state.dataset, draw=False)
            self.state.load(fit(tensors, self.state.tensors()), values, "the changed state")
            self.feed.drawer = Drawer(config)
        self.state.rollbacks = rollbacks

    def must_be_durable(self, saved: bool) -> None:
        """End all processes if the main one could not save."""
        if not all(gather(self.world, saved)):
            raise Failed(f"the state is not durable: see above; the last checkpoint in {self.run.checkpoints} serves")
