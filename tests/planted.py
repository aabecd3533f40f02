"""The trainer with one mistake planted: `python -m tests.planted MISTAKE train …`. The tests must see each of them."""

from __future__ import annotations

import os

from trainer.core import migration

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch

from trainer.__main__ import main
from trainer.collapse.monitor_state import MonitorState
from trainer.core.randomness import Draws, philox
from trainer.distributed.flat_buffer import FlatBuffer
from trainer.distributed.reduction import ExactReduction
from trainer.gan.async_scalars import AsyncScalars
from trainer.gan.batches import RandomInputs
from trainer.gan.state import TrainState
from trainer.networks.base import Latent
from trainer.networks.batch_norm import BatchStatistics
from trainer.networks.spectral_norm import SpectralNorm, advance
from trainer.training.sample_grids import SampleGrids

RANK = int(os.environ.get("RANK", "0"))


def reduction_order() -> None:
    """Add this rank's buffers up from left to right, in place of the tree's order."""

    def add(self: ExactReduction, node: tuple[int, int], buffer: FlatBuffer) -> None:
        owned = self.subtrees_of[self.world.rank]
        if self.partial_sums:
            next(iter(self.partial_sums.values())).flat.add_(buffer.flat)
            for other in owned[1:]:
                self.partial_sums.setdefault(other, FlatBuffer(self.layout))
        else:
            self.partial_sums[owned[0]] = buffer

    ExactReduction.add = add  # type: ignore[method-assign]


def forget(what: Callable[[str], bool]) -> None:
    """Keep on resume, in place of the saved tensors of these names, those of a run that begins."""
    load = TrainState.load

    def forgetful(self: TrainState, tensors: dict[str, torch.Tensor], *rest: object) -> None:
        mine = self.tensors()
        load(self, {k: mine[k].clone() if what(k) else v for k, v in tensors.items()}, *rest)  # type: ignore

    TrainState.load = forgetful  # type: ignore[assignment,method-assign]


def lost_buffer() -> None:
    """Forget BatchNorm's running statistics on resume."""
    forget(lambda name: "running" in name)


def lost_average() -> None:
    """Forget the generator's moving average on resume."""
    forget(lambda name: name.startswith("ema."))


def lost_memory() -> None:
    """Forget on resume what penalties and augmentation remember."""
    forget(lambda name: name.startswith("running_scalars."))


def vectors_by_passes() -> None:
    """Advance spectral norm's vectors in each forward pass, as torch's own does."""
    forward = SpectralNorm.forward

    def advancing(self: SpectralNorm, weight: torch.Tensor) -> torch.Tensor:
        advance([(self, weight)], 1)
        return forward(self, weight)

    SpectralNorm.forward = advancing  # type: ignore[method-assign]


def draw_by_rank() -> None:
    """Key the draws by the rank."""

    def rng(self: Draws, purpose: str, images_seen: int, micro_batch: int) -> np.random.Generator:
        return philox(self.seed, self.rollbacks, purpose, images_seen, micro_batch, RANK)

    Draws.rng = rng  # type: ignore[method-assign]


def live_statistics() -> None:
    """Update the running statistics from this rank's last micro-batch, as plain BatchNorm under DDP does."""
    update = BatchStatistics.update_running
    BatchStatistics.update_running = lambda self, flat: update(self, self.flat)  # type: ignore[method-assign]


def nan_once() -> None:
    """Poison one step of a run that has not rolled back yet."""
    draw = RandomInputs.__call__

    def poisoned(
        self: RandomInputs, draws: Draws, label: torch.Tensor, images_seen: int, micro_batch: int
    ) -> tuple[Latent, dict[str, dict[str, torch.Tensor]]]:
        latent, parts = draw(self, draws, label, images_seen, micro_batch)
        if images_seen == 192 and not draws.rollbacks and micro_batch == 3:
            latent = replace(latent, z=latent.z * float("nan"))
        return latent, parts

    RandomInputs.__call__ = poisoned  # type: ignore[method-assign]


COLLAPSED = {"diversity": 0.01, "similarity": 0.8, "coverage": 0.01, "distance_to_data": 1.0}
HEALTHY = {"diversity": 0.9, "similarity": 0.0, "coverage": 0.9, "distance_to_data": 1.0}


def collapse_once() -> None:
    """Let the collapse monitor see a collapse from 160 images on, in a run that has not rolled back yet."""

    def measure(self: SampleGrids, state: TrainState) -> dict[str, float]:
        self.measured = self.real.images
        return COLLAPSED if state.images_seen >= 160 and not state.rollbacks else HEALTHY

    SampleGrids.measure_collapse = measure  # type: ignore[method-assign]


def collapse_and_forget() -> None:
    """The same, and lose what the collapse monitor remembers on resume."""
    collapse_once()
    load = TrainState.load

    def forgetful(self: TrainState, *rest: object) -> None:
        load(self, *rest)  # type: ignore[arg-type]
        self.monitor = MonitorState()

    TrainState.load = forgetful  # type: ignore[assignment,method-assign]


def migration_that_forgets() -> None:
    """Let a state of an earlier format lose what the collapse monitor remembers."""
    step = migration.STEPS["state.json"]
    forgetful = {
        "state.json": lambda values, schema: step(values, schema) | {"collapse_monitor": asdict(MonitorState())}
    }
    migration.STEPS = {**migration.STEPS, **forgetful}


def migration_to_other_bits() -> None:
    """Let a run of an earlier format have a setting that it had not."""
    step = migration.STEPS["config.json"]
    changed = {"config.json": lambda values, schema: step(values, schema) | {"flip": True}}
    migration.STEPS = {**migration.STEPS, **changed}


def late_scalars() -> None:
    """No mistake: let scalars arrive one step late, as they do on a GPU."""
    create = AsyncScalars.__init__

    def late(self: AsyncScalars, device: torch.device) -> None:
        create(self, device)
        self.lag = 1

    AsyncScalars.__init__ = late  # type: ignore[method-assign]


MISTAKES = {
    f.__name__: f
    for f in (
        reduction_order,
        lost_buffer,
        lost_average,
        lost_memory,
        vectors_by_passes,
        draw_by_rank,
        live_statistics,
        nan_once,
        collapse_once,
        collapse_and_forget,
        migration_that_forgets,
        migration_to_other_bits,
        late_scalars,
    )
}

if __name__ == "__main__":
    MISTAKES[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
