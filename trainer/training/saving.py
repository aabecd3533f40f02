"""Saving on rank 0: checkpoints in the background, the anchors among them, and evaluations of what was saved."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from trainer.config.config import Config
from trainer.gan.state import TrainState
from trainer.runs.checkpoint import Checkpoint, newest_whole, quarantine
from trainer.runs.checkpoint_writer import Checkpoints, Saved
from trainer.runs.init_from import begins_at
from trainer.runs.journal import EventKind
from trainer.runs.run_folder import RunFolder
from trainer.tracking.stalls import Stalls
from trainer.tracking.tracker import Tracker
from trainer.training.background_evaluation import Evaluations, evaluation_place

log = logging.getLogger(__name__)


class Saving:
    """Saves states and finds them again.

    An anchor is a checkpoint that every run of these settings has, whatever was saved besides: neither stops nor
    operational settings decide where a rollback goes.

    Args:
        config, run: of the run.
        device: where rank 0 trains.
        tracker: records what was saved.
        stalls: how long training stood still for it.
        before_manifest: called before a checkpoint becomes valid; OSError if it must not.
    """

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        device: torch.device,
        tracker: Tracker,
        stalls: Stalls,
        before_manifest: Callable[[], None],
    ) -> None:
        self.config, self.run, self.tracker, self.stalls = config, run, tracker, stalls
        self.checkpoints = Checkpoints(run.checkpoints, config.checkpoint, before_manifest)
        self.evaluations = Evaluations(run, config.metrics, tracker, evaluation_place(config, device))
        self.checkpoints.kept = self.evaluations.kept
        # Pruning must not remove what a rollback would go to.
        self.checkpoints.keep_newest_of = self.is_anchor, self.is_healthy_anchor
        self.saved: tuple[int, int] | None = None  # the last state whose saving began
        self.stall_s = 0.0  # how long the last save held up training

    def newest(self, wanted: Callable[[Checkpoint], bool] = lambda _: True) -> Path | None:
        """Return the newest whole checkpoint that is wanted, having quarantined the damaged ones that are newer."""

        def aside(checkpoint: Checkpoint, problem: str) -> None:
            moved = quarantine(checkpoint)
            log.warning("checkpoint %s is damaged: %s; set aside as %s", checkpoint.path.name, problem, moved.name)
            self.tracker.event(
                EventKind.DAMAGED_CHECKPOINT, name=checkpoint.path.name, problem=problem, moved_to=moved.name
            )

        found = newest_whole(self.run.checkpoints, aside, wanted)
        return found.path if found else None

    def last_anchor(self, healthy: bool) -> Path | None:
        """Return the last anchor, or the last healthy one."""
        return self.newest(self.is_healthy_anchor if healthy else self.is_anchor)

    def is_anchor(self, checkpoint: Checkpoint) -> bool:
        """Tell whether each run of these settings has saved here."""
        seen = checkpoint.images_seen
        return seen == self.first_images or self.config.passed(self.config.anchor_every_images, seen)

    @cached_property
    def first_images(self) -> int:
        """The images seen at the state that the run began with."""
        return begins_at(self.run)

    def is_healthy_anchor(self, checkpoint: Checkpoint) -> bool:
        """Tell whether the collapse monitor had measured nothing bad there, besides."""
        return self.is_anchor(checkpoint) and checkpoint.healthy()

    def save(self, state: TrainState, wait: bool, later: Callable[[], dict[str, Any]]) -> bool:
        """Save the state, in the background unless told to wait; False when waiting showed that it is not durable.

        Args:
            state: to be saved.
            wait: until it is durable.
            later: gives those of the state's values that are not known yet, in the background.
        """
        key = (state.images_seen, len(state.rollbacks))
        durable = self.collect(wait=True)  # one at a time: the snapshot's memory is reused
        # The last step, or a stop, may come just where a checkpoint was saved.
        if key != self.saved or not durable:
            with self.stalls.during("checkpoint"):
                self.checkpoints.save(state.tensors(), state.scalars(), later)
            self.saved = key
        return self.collect(wait=True) if wait else True

    def collect(self, wait: bool = False) -> bool:
        """Record what became of the last save; False if it failed."""
        with self.stalls.during("evaluation"):
            self.evaluations.collect()
        with self.stalls.during("checkpoint"):
            result = self.checkpoints.result(wait)
        if isinstance(result, Saved):
            self.stall_s = result.stall_s
            seconds = {"stall_s": round(result.stall_s, 4), "write_s": round(result.write_s, 4)}
            self.tracker.event(EventKind.CHECKPOINT, images_seen=result.images_seen, **seconds)
            with self.stalls.during("evaluation"):
                self.evaluations.saved()
        elif isinstance(result, OSError):
            problem = result.strerror or str(result)
            log.error("THE CHECKPOINT WAS NOT WRITTEN: %s; training goes on, the last one stays", problem)
            self.tracker.event(EventKind.CHECKPOINT_FAILED, problem=problem)
            return False
        return True

    def close(self, finished: bool) -> None:
        """End the background work; an evaluation of a run that is finished is waited for."""
        self.checkpoints.close()
        self.evaluations.close(finished)
