"""The collapse monitor's measurements on rank 0: asked for, judged when they are there, told if they are bad."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from trainer.collapse.judgement import Judgement
from trainer.collapse.monitor_state import Health, MonitorState, alarm_reasons
from trainer.gan.state import TrainState
from trainer.networks.base import named_weights
from trainer.runs.journal import EventKind
from trainer.runs.run_folder import RunFolder
from trainer.tracking.held_rows import Later
from trainer.tracking.stalls import Stalls
from trainer.tracking.tracker import Tracker
from trainer.training.measurements import Measurements
from trainer.training.sample_grids import Request

log = logging.getLogger(__name__)


class CollapseJudgements:
    """Keeps the judgement of the last measurement.

    Args:
        run: the run folder.
        tracker: takes note of alarms.
        stalls: how long training stood still for it.
        measurements: measure.
        logistic: D's logits are log odds.
    """

    def __init__(
        self, run: RunFolder, tracker: Tracker, stalls: Stalls, measurements: Measurements, logistic: bool
    ) -> None:
        self.run, self.tracker, self.stalls = run, tracker, stalls
        self.measurements, self.logistic = measurements, logistic
        self.last: Judgement | None = None

    def measure(self, state: TrainState) -> None:
        """Have images of the generator compared with the data."""
        weights = {name: weight.detach() for name, weight in named_weights(state.generator)}
        images_seen, rollbacks = state.images_seen, len(state.rollbacks)
        with self.stalls.during("collapse"):
            measured = self.measurements.ask(Request("collapse", images_seen, rollbacks), weights)
        self.last = Judgement(state.monitor, images_seen, rollbacks, self.logistic, measured, self.alert)

    def judged(self) -> Mapping[str, Any]:
        """Wait for the last measurement, and return the fields of the monitor's state after it."""
        assert self.last
        with self.stalls.during("collapse"):
            return asdict(self.last.judge()[0])

    def columns_of(self, images_seen: int) -> list[Later]:
        """Return the columns of the row of `images_seen`, if a measurement began there."""
        return [self.last] if self.last and self.last.images_seen == images_seen else []

    def values(self, judgement: Judgement | None, monitor: MonitorState) -> dict[str, Any]:
        """Wait for a measurement, and return what a checkpoint holds of the monitor, whose steps may have gone on."""
        return {"collapse_monitor": asdict(judgement.judge()[0].with_steps_of(monitor))} if judgement else {}

    def forget(self) -> None:
        """Forget the last measurement: it was of a state that is rolled back."""
        self.last = None

    def alert(self, judgement: Judgement, health: MonitorState, evidence: Mapping[str, float]) -> None:
        """Say that the run has become worse, and write the images that tell; before the row of the measurement."""
        what, images_seen = Health(health.health).name.lower(), judgement.images_seen
        why = "; ".join(alarm_reasons(evidence, images_seen, health.best.get("diversity", 0.0)))
        path = self.run.alarm_images(images_seen, judgement.rollbacks)
        self.measurements.ask(Request("alarm", images_seen, judgement.rollbacks), {}).result()
        log.warning("COLLAPSE MONITOR: %s at %s images: %s; see %s", what, f"{images_seen:,}", why, path)
        facts = {"images_seen": images_seen, "picture": path.name, "evidence": dict(evidence)}
        self.tracker.event(EventKind.COLLAPSE_ALARM, state=what, problem=why, **facts)
