"""Rolling back: to the last anchor, and on from there with other draws and perhaps other settings."""

from __future__ import annotations

from typing import Any

from trainer.collapse.monitor import CollapseMonitor, in_words
from trainer.collapse.rollback_changes import apply_rollbacks, next_change
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.core.stopping import Diverged, Failed
from trainer.distributed.collective import on_main
from trainer.distributed.world import World
from trainer.gan.state import TrainState
from trainer.runs.run_folder import RunFolder
from trainer.training.recorder import Recorder
from trainer.training.replica import Replica

NOT_FINITE = "NaN or Inf"


def roll_back(replica: Replica, recorder: Recorder, world: World, images_seen: int, why: str) -> None:
    """Load the last anchor, and note the rollback in the state; the caller makes it durable.

    Args:
        replica: the state to roll back.
        recorder: rank 0's, which knows the anchors.
        world: the ranks, all of which call this.
        images_seen: where the run was found broken.
        why: what was found there: NOT_FINITE, or the health that the collapse monitor saw.

    Raises:
        Diverged: there were enough rollbacks before.
        Failed: there is no whole checkpoint to go back to.
    """
    config, before = replica.config, replica.state.rollbacks
    if len(before) >= config.max_rollbacks:
        ways = ways_on(recorder.run, replica)
        raise Diverged(f"{why} at {images_seen:,} images, after {len(before)} rollbacks. {ways}")
    # The newest checkpoint may still be in the writer's hands, and may be the anchor.
    recorder.wait_for_checkpoint()
    # Every saved state was found finite, so after NaN the newest anchor will do. A collapse began before it was seen.
    path = on_main(world, lambda: recorder.last_anchor(healthy=why != NOT_FINITE))
    if path is None:
        raise Failed(f"{why} at {images_seen} images, and there is no whole checkpoint to go back to")
    replica.load(path)
    rollback: dict[str, Any] = {"from": images_seen, "to": replica.state.images_seen, "why": why}
    if config.collapse.policy == "roll-back":
        # Rollbacks under another policy changed no settings, and take no turn.
        turn = sum("change" in earlier for earlier in before)
        rollback["change"] = next_change(apply_rollbacks(config, before), config.collapse.changes, turn)
    replica.set_rollbacks([*before, rollback])


def refuse_collapsed(state: TrainState, monitor: CollapseMonitor, recorder: Recorder, world: World) -> None:
    """Refuse to train on a run that has collapsed or diverged, if that is the policy.

    Raises:
        Refused: naming the ways on.
    """
    if monitor.policy(state.monitor) != "stop":
        return
    healthy = on_main(world, lambda: recorder.last_anchor(healthy=True))
    back = f", or with roll-back to go on from the healthy checkpoint {healthy.name}" if healthy else ""
    raise Refused(
        f"the run has {in_words(state.monitor)} by {state.images_seen:,} images (the collapse monitor's rows in "
        f"events.jsonl say why); resume it with --collapse.policy tell to go on as it is{back}"
    )


def ways_on(run: RunFolder, replica: Replica) -> str:
    """Say what can be done about a run that diverges again and again."""
    path, o = run.path, replica.in_force.optimizer
    rates = "--optimizer.g-lr", f"{o.g_lr / 2:g}", "--optimizer.d-lr", f"{o.d_lr / 2:g}"
    lower = command("launcher", "resume", path, "--as", f"{path}-lower-rates", *rates)
    again = command("launcher", "resume", path, "--max-rollbacks", replica.config.max_rollbacks + 3)
    return (
        "Go on from the last good state as a new run with other settings, such as lower rates: "
        f"{lower}; or try other draws: {again}"
    )
