"""What the collapse monitor makes of one measurement, once that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Lock

from trainer.collapse.monitor_state import MonitorState


class Judgement:
    """The judgement of one measurement, on rank 0, for whichever thread asks first.

    Args:
        before: the monitor's state when the measurement began.
        images_seen, rollbacks: of the run then.
        logistic: D's logits are log odds.
        measured: of generated images, by CollapseMetrics.
        alert: called once, before anybody has the result, if the run has become worse.
    """

    def __init__(
        self,
        before: MonitorState,
        images_seen: int,
        rollbacks: int,
        logistic: bool,
        measured: Future[dict[str, float]],
        alert: Callable[[Judgement, MonitorState, Mapping[str, float]], None],
    ) -> None:
        self.before, self.images_seen, self.rollbacks, self.logistic = before, images_seen, rollbacks, logistic
        self.measured, self.alert, self.lock = measured, alert, Lock()
        self.found: tuple[MonitorState, dict[str, float]] | None = None

    def judge(self) -> tuple[MonitorState, dict[str, float]]:
        """Wait for the measurement; return the state from there on, and the evidence.

        Raises:
            OSError: it could not be made.
        """
        with self.lock:
            if self.found is None:
                found = self.before.add_measurement(self.measured.result(), self.images_seen, self.logistic)
                if found[0].health > found[0].previous_health:
                    self.alert(self, *found)
                self.found = found
            return self.found

    def done(self) -> bool:
        """Tell whether the measurement is there."""
        return self.measured.done()

    def result(self) -> dict[str, float]:
        """Return the columns of the row that the measurement belongs to."""
        state, evidence = self.judge()
        columns = {f"collapse/{name}": value for name, value in evidence.items()}
        return columns | {"collapse/health": float(state.health)}
