"""The collapse monitor: rank 0 measures, and every rank comes to the same answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainer.collapse.monitor_state import Record, State
from trainer.config.config import Config
from trainer.config.groups import Policy
from trainer.distributed.collective import on_main
from trainer.distributed.world import World
from trainer.losses.objectives import OBJECTIVES

Measure = Callable[[], Mapping[str, float]]
Alert = Callable[[Record, Mapping[str, float]], None]


class Watch:
    """Watches a run for collapse and divergence.

    Args:
        config, world: of the run.
        measure: compares generated images with the data; on rank 0 only, None elsewhere.
        alert: is told when the run has become worse; on rank 0 only, None elsewhere.
    """

    def __init__(self, config: Config, world: World, measure: Measure | None, alert: Alert | None) -> None:
        self.config, self.world, self.measure, self.alert = config, world, measure, alert

    def look(self, state: Record, images_seen: int) -> tuple[Record, dict[str, float]]:
        """Measure and judge; return the state from here on, and the columns of a row."""
        seen = on_main(self.world, self.measure)
        logistic = OBJECTIVES[self.config.objective].logistic
        following, evidence = state.look(seen, images_seen, logistic)
        if self.alert and following.state > following.before:
            self.alert(following, evidence)
        columns = {f"sentinel/{name}": value for name, value in evidence.items()}
        return following, columns | {"sentinel/state": float(following.state)}

    def wants(self, state: Record) -> Policy:
        """Return what is to be done about a run: no more than to tell, while it has not collapsed or diverged."""
        return self.config.sentinel.policy if state.state >= State.COLLAPSED else "tell"


def in_words(state: Record) -> str:
    """Return what the sentinel holds of a run."""
    return State(state.state).name.lower()
