"""The sentinel at its post: it looks where pictures are painted, and every process comes to the same answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from trainer.collective import on_main
from trainer.config import Config
from trainer.objectives import OBJECTIVES
from trainer.sentinel.judgement import State
from trainer.sentinel.settings import Policy
from trainer.settings import Refused
from trainer.state import TrainState
from trainer.world import World

if TYPE_CHECKING:
    from trainer.desk import Desk


class Watch:
    """Watches the state of a run.

    Args:
        config, world: of the run.
        desk: of the main process, which looks, and is told when the run becomes worse; None elsewhere.
    """

    def __init__(self, config: Config, world: World, desk: Desk | None) -> None:
        self.config, self.world, self.desk = config, world, desk

    def look(self, state: TrainState) -> dict[str, float]:
        """Let the sentinel look and judge, and remember; return what it has seen as columns of a row."""
        seen = on_main(self.world, partial(self.desk.look, state) if self.desk else None)
        logistic = OBJECTIVES[self.config.objective].logistic
        state.sentinel, evidence = state.sentinel.look(seen, state.images_seen, logistic)
        if self.desk and state.sentinel.state > state.sentinel.before:
            self.desk.alarm(state, evidence)
        columns = {f"sentinel/{name}": value for name, value in evidence.items()}
        return columns | {"sentinel/state": float(state.sentinel.state)}

    def wants(self, state: TrainState) -> Policy:
        """Return what is to be done about a run: no more than to tell, while it has not collapsed or diverged."""
        return self.config.sentinel.policy if state.sentinel.state >= State.COLLAPSED else "tell"

    def refuse_collapsed(self, state: TrainState) -> None:
        """Refuse to train on, if that is the policy.

        Raises:
            Refused: the run has collapsed or diverged.
        """
        if self.wants(state) == "stop":
            raise Refused(
                f"the run has {in_words(state)} by {state.images_seen:,} images (the sentinel's rows in events.jsonl "
                f"say why); resume it with --sentinel.policy tell to go on as it is{self.or_back()}"
            )

    def or_back(self) -> str:
        """Return the other way on, if there is a healthy checkpoint to go back to."""
        healthy = on_main(self.world, partial(self.desk.anchor, healthy=True) if self.desk else None)
        return f", or with roll-back to go on from the healthy checkpoint {healthy.name}" if healthy else ""


def in_words(state: TrainState) -> str:
    """Return what the sentinel holds of a run."""
    return State(state.sentinel.state).name.lower()
