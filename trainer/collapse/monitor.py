"""The collapse monitor: rank 0 measures, and every rank comes to the same answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainer.collapse.monitor_state import Health, MonitorState
from trainer.config.config import Config
from trainer.config.groups import Policy
from trainer.distributed.collective import on_main
from trainer.distributed.world import World
from trainer.losses.objectives import OBJECTIVES

Measure = Callable[[], Mapping[str, float]]
Alert = Callable[[MonitorState, Mapping[str, float]], None]


class CollapseMonitor:
    """Watches a run for collapse and divergence.

    Args:
        config, world: of the run.
        measure: compares generated images with the data; called on rank 0 only.
        alert: called when the run has become worse.
    """

    def __init__(self, config: Config, world: World, measure: Measure, alert: Alert) -> None:
        self.config, self.world, self.measure, self.alert = config, world, measure, alert

    def __call__(self, state: MonitorState, images_seen: int) -> tuple[MonitorState, dict[str, float]]:
        """Measure and judge; return the state from here on, and the columns of a row."""
        # Rank 0 measures, and all ranks get its numbers: they are a part of the state, which must be the same on each.
        measured = on_main(self.world, self.measure)
        logistic = OBJECTIVES[self.config.objective].logistic
        following, evidence = state.add_measurement(measured, images_seen, logistic)
        if following.health > following.previous_health:
            self.alert(following, evidence)
        columns = {f"collapse/{name}": value for name, value in evidence.items()}
        return following, columns | {"collapse/health": float(following.health)}

    def policy(self, state: MonitorState) -> Policy:
        """Return what is to be done about a run: no more than to tell, while it has not collapsed or diverged."""
        return self.config.collapse.policy if state.health >= Health.COLLAPSED else "tell"


def in_words(state: MonitorState) -> str:
    """Return what the collapse monitor holds of a run."""
    return Health(state.health).name.lower()
