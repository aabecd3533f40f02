"""The training loop: what happens after which step, and that all ranks do it together."""

from __future__ import annotations

import logging

from accelerate import Accelerator

from shards.dataset.index import Index
from shards.dataset.stream import Reader
from trainer.collapse.monitor import CollapseMonitor, in_words
from trainer.config.config import Config
from trainer.core.stopping import Failed, Outcome
from trainer.distributed.collective import gather_values, on_main
from trainer.distributed.numerical_environment import numerical_environment
from trainer.gan.assembly import world_of
from trainer.gan.batches import BatchLoader
from trainer.launch.job_context import JobContext
from trainer.runs.init_from import read_pretrained, take_over
from trainer.runs.run_folder import RunFolder
from trainer.training.due import Clock, Signal, read_signals
from trainer.training.measurements import measures_beside
from trainer.training.rank_zero import record_on
from trainer.training.replica import Replica
from trainer.training.rollback import NOT_FINITE, refuse_collapsed, roll_back
from trainer.training.step_verdict import StepCheck, StepVerdict, watch_collapse
from trainer.training.watchdog import Watchdog

log = logging.getLogger(__name__)


class Training:
    """One attempt at a run, from the newest checkpoint to the end or to a stop.

    Args:
        config, run: of the run; every rank is given the same.
        index: the dataset.
        accelerator: device, process group and precision.
        context: the job that this process belongs to.
    """

    def __init__(
        self, config: Config, run: RunFolder, index: Index, accelerator: Accelerator, context: JobContext
    ) -> None:
        self.config, self.run, self.context = config, run, context
        self.world, self.device = world_of(accelerator), accelerator.device
        self.damage: dict[int, str] = {}
        self.reader = Reader(index, "train", self.damage.__setitem__, config.network.label_names)
        self.total = config.images_to_see(self.reader.split.samples)
        self.monitor_every = config.monitor_interval(self.reader.split.samples)
        self.save_every = config.interval("checkpoint"), config.interval("anchor")
        self.intervals = config.interval("sample"), *self.save_every, self.monitor_every
        self.clock = Clock(config, context.stop, main=self.world.rank == 0)
        # Keeps the run folder on rank 0; on the other ranks its methods do nothing.
        self.recorder = record_on(self.world, config, run, self.reader, self.device, context)
        self.newest = on_main(self.world, self.recorder.newest_checkpoint)
        self.replica = Replica(config, index.hash, accelerator, draw=self.newest is None)
        beside, judged = measures_beside(config, self.device), self.recorder.judged
        self.monitor = CollapseMonitor(
            config, self.world, beside, lambda: self.recorder.measure_collapse(self.replica.state), judged
        )
        self.check = StepCheck(config, self.device, self.monitor_every > 0, self.report_damage)
        self.watchdog = Watchdog(self.world, context.place, config.stall_after_s, self.recorder.report_stall)
        self.loader = BatchLoader(config, self.world, self.device, self.reader, run.plan)

    def train(self) -> Outcome:
        """Train until all images were seen, or a stop is asked for.

        Raises:
            Failed: NaN or Inf came back after the allowed rollbacks, or a state that must be durable is not.
        """
        self.resume()
        batches = self.replica.batches(self.loader)
        while (state := self.replica.state).images_seen < self.total:
            with self.recorder.measure_step():
                scalars = self.replica.step(next(batches), self.clock)
            self.watchdog.step(state.images_seen)
            ends = state.images_seen >= self.total
            # On a GPU scalars arrive a step late. Wait for them where the state is saved or measured: it must be good.
            rows, verdict, at = self.check(state, scalars, wait=ends or any(map(self.replica.passed, self.intervals)))
            verdict, met = watch_collapse(self.monitor, state, verdict, self.replica.passed(self.monitor_every), ends)
            if verdict is StepVerdict.ROLL_BACK:
                self.roll_back(*((at, NOT_FINITE) if met is None else (met, in_words(state.monitor))))
                batches = self.replica.batches(self.loader)
                continue
            self.recorder.record(state, rows)
            signals = read_signals(rows)
            if Signal.SAVE in signals or any(map(self.replica.passed, self.save_every)):
                self.recorder.save(state)
            self.clock.restart(signals)
            if verdict is StepVerdict.STOP:
                break
        self.must_be_durable(self.recorder.save(state, wait=True))
        refuse_collapsed(self.replica.state, self.monitor, self.recorder, self.world)
        return Outcome.FINISHED if state.images_seen >= self.total else Outcome.INTERRUPTED

    def resume(self) -> None:
        """Load the newest whole checkpoint, or save the state of a run that begins, and roll back a collapsed one."""
        environments, pretrained = gather_values(self.world, numerical_environment(self.device)), None
        if self.newest is not None:
            self.replica.load(self.newest)
            log.info("resuming at %s images from %s", f"{self.replica.state.images_seen:,}", self.newest.name)
        elif self.config.init_hash:  # else the run starts from the weights that were drawn
            pretrained = read_pretrained(self.run, self.config.init_hash)
            take_over(self.replica.state, pretrained, self.config.seed)
        refuse_collapsed(self.replica.state, self.monitor, self.recorder, self.world)
        self.recorder.begin(self.replica.state, environments, pretrained)
        state = self.replica.state
        if self.newest is None:
            self.recorder.save(state)
        if self.monitor.policy(state.monitor) == "roll-back":  # the policy under which it collapsed was another
            met = self.config.last_passed(self.monitor_every, state.images_seen)
            self.roll_back(met, in_words(state.monitor))

    def report_damage(self) -> None:
        """Tell rank 0 which damaged samples the ranks have met."""
        self.recorder.report_damage(gather_values(self.world, dict(self.damage)))
        self.damage.clear()

    def roll_back(self, images_seen: int, why: str) -> None:
        """Go back to the last anchor; what became of the steps since then is forgotten."""
        roll_back(self.replica, self.recorder, self.world, images_seen, why)
        self.check.clear()
        self.must_be_durable(self.recorder.rolled_back(self.replica.state))

    def must_be_durable(self, saved: bool) -> None:
        """End all ranks if rank 0 could not save."""
        if not all(gather_values(self.world, saved)):
            raise Failed(f"the state is not durable: see above; the last checkpoint in {self.run.checkpoints} serves")
