"""The collapse monitor: rank 0 measures, beside training or in line, and every rank comes to the same answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainer.collapse.monitor_state import Health, MonitorState
from trainer.config.config import Config
from trainer.config.groups import Policy
from trainer.distributed.collective import on_main
from trainer.distributed.world import World


class CollapseMonitor:
    """Watches a run for collapse and divergence.

    A measurement that begins at one point is settled at the next one: until then training goes on. It is settled
    earlier where its judgement could change what happens: before the rollback of a step that is not finite, before a
    stop, at the end, and at once under the policy "stop". What a run that rolls back loses by that is time: it goes
    back to the same state, and the rows and states in between are forgotten.

    Args:
        config, world: of the run.
        beside: training goes on meanwhile.
        measure: begins a measurement, on rank 0.
        judged: waits for it, and returns the fields of the monitor's state after it; called on rank 0 only.
    """

    def __init__(
        self,
        config: Config,
        world: World,
        beside: bool,
        measure: Callable[[], object],
        judged: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.config, self.world, self.measure, self.judged = config, world, measure, judged
        self.at_once = not beside or config.collapse.policy == "stop"
        self.begun_at: int | None = None  # the images seen when a measurement began that is not settled

    def begin(self, state: MonitorState, images_seen: int) -> MonitorState:
        """Begin a measurement; return the state that adds up the steps from here on."""
        self.measure()
        self.begun_at = images_seen
        return state.begin_interval()

    def settle(self, state: MonitorState) -> tuple[MonitorState, int | None]:
        """Settle what has begun; return the state, and the images seen at a measurement that the policy answers.

        Raises:
            OSError: on rank 0, if it could not be measured.
        """
        began, self.begun_at = self.begun_at, None
        if began is None:
            return state, None
        # All ranks get it: the monitor's state is a part of the training state, which must be the same on each.
        state = MonitorState(**on_main(self.world, self.judged)).with_steps_of(state)
        return state, None if self.policy(state) == "tell" else began

    def policy(self, state: MonitorState) -> Policy:
        """Return what is to be done about a run: no more than to tell, while it has not collapsed or diverged."""
        return self.config.collapse.policy if state.health >= Health.COLLAPSED else "tell"


def in_words(state: MonitorState) -> str:
    """Return what the collapse monitor holds of a run."""
    return Health(state.health).name.lower()
