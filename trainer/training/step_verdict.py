"""What a step, and the collapse monitor, say about the next one. All ranks know the same, so they decide alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from math import isfinite

import torch
from torch import Tensor

from trainer.collapse.monitor import CollapseMonitor
from trainer.config.config import Config
from trainer.gan.async_scalars import AsyncScalars, Row
from trainer.gan.state import TrainState


class StepVerdict(Enum):
    """What happens after a step."""

    GO_ON = auto()
    STOP = auto()
    ROLL_BACK = auto()


POLICY_VERDICTS = {"stop": StepVerdict.STOP, "roll-back": StepVerdict.ROLL_BACK}
"""What the policies of the collapse monitor mean; "tell" goes on."""


class StepCheck:
    """Reads the scalars of the steps as they arrive on the host.

    Args:
        config, device: of the run.
        monitored: the collapse monitor takes in each step.
        report_damage: called on every rank after a step in which some rank met damaged samples.
    """

    def __init__(
        self, config: Config, device: torch.device, monitored: bool, report_damage: Callable[[], None]
    ) -> None:
        self.config, self.monitored, self.report_damage = config, monitored, report_damage
        self.scalars = AsyncScalars(device)

    def __call__(self, state: TrainState, scalars: dict[str, Tensor], wait: bool) -> tuple[list[Row], StepVerdict, int]:
        """Take in a step's scalars; return the rows that have arrived, the verdict, and where they were not finite.

        Args:
            state: after the step.
            scalars: of the step, on the device.
            wait: for all scalars, rather than for those of the step before.
        """
        rows = self.scalars.push(state.images_seen, scalars, wait)
        verdict, broken_at = self.check(state, rows)
        if verdict is StepVerdict.STOP:  # nothing is saved that was not checked, and no row is left behind
            rows += (rest := self.scalars.arrived())
            last, broken_at = self.check(state, rest)
            verdict = StepVerdict.ROLL_BACK if last is StepVerdict.ROLL_BACK else verdict
        return rows, verdict, broken_at

    def check(self, state: TrainState, rows: list[Row]) -> tuple[StepVerdict, int]:
        """Return what rows say, and the images seen at the first that is not finite, or 0."""
        for images_seen, scalars in rows:
            if not self.finite(scalars):
                return StepVerdict.ROLL_BACK, images_seen
            if self.monitored:
                state.monitor = state.monitor.add_step(scalars)
            # `replaced` is reduced, so either all ranks come by here, as a collective wants it, or none.
            if scalars["replaced"]:
                self.report_damage()
        return (StepVerdict.STOP if any(scalars["stop"] for _, scalars in rows) else StepVerdict.GO_ON), 0

    def finite(self, scalars: Mapping[str, float]) -> bool:
        """Tell whether losses and gradients are finite, where they must be."""
        names = ["loss_d", "loss_g"]
        if self.config.mixed_precision != "fp16":  # there the scaler skips the step when gradients overflow
            names += ["grad_norm_d", "grad_norm_g"]
        return all(isfinite(scalars[name]) for name in names)

    def clear(self) -> None:
        """Forget the scalars that have not arrived: their steps were rolled back."""
        self.scalars.clear()


def watch_collapse(
    monitor: CollapseMonitor, state: TrainState, verdict: StepVerdict, due: bool, ends: bool
) -> tuple[StepVerdict, int | None]:
    """Begin a measurement if one is due, and settle the one before.

    Args:
        monitor: of the run.
        state: after the step.
        verdict: of its scalars.
        due: a measurement begins here.
        ends: this was the last step.

    Returns: the verdict, and the images seen at the measurement that it comes of, if it does.
    """

    def settle() -> int | None:
        state.monitor, met = monitor.settle(state.monitor)
        return met

    # A collapse that was met before a step broke, or before a stop, comes first: as if it had been known at once.
    met = settle() if due or ends or verdict is not StepVerdict.GO_ON else None
    if due and met is None and verdict is not StepVerdict.ROLL_BACK:
        state.monitor = monitor.begin(state.monitor, state.images_seen)
        met = settle() if monitor.at_once or ends or verdict is StepVerdict.STOP else None
    return (verdict, None) if met is None else (POLICY_VERDICTS[monitor.policy(state.monitor)], met)
