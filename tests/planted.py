"""The trainer with one mistake planted: `python -m tests.planted MISTAKE train …`. The tests must see each of them."""

from __future__ import annotations

import os

from trainer.core import migration

os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

import numpy as np
import numpy.typing as npt
import torch

from shards.dataset.labels import LabelReader, Labels
from trainer.__main__ import main
from trainer.collapse.monitor_state import MonitorState
from trainer.core.randomness import Draws, philox
from trainer.distributed import exchange, gpu_places, overlap, process_group
from trainer.distributed.flat_buffer import FlatBuffer
from trainer.distributed.gpu_places import RankPlace
from trainer.distributed.lane import ThreadLane
from trainer.distributed.reduction import ExactReduction
from trainer.distributed.regions import REGION_NUMEL, GradientRegions
from trainer.gan.async_scalars import AsyncScalars
from trainer.gan.batches import RandomInputs
from trainer.gan.state import TrainState
from trainer.networks.base import Latent
from trainer.networks.batch_statistics import BatchStatistics
from trainer.networks.spectral_norm import SpectralNorm, advance
from trainer.training import measurements
from trainer.training.rank_zero import RankZero
from trainer.training.sample_grids import Request, SampleGrids

RANK = int(os.environ.get("RANK", "0"))


def reduction_order() -> None:
    """Add this rank's buffers up from left to right, in place of the tree's order."""

    def add(self: ExactReduction, node: tuple[int, int], buffer: FlatBuffer) -> list[tuple[torch.Tensor, torch.Tensor]]:
        owned = self.subtrees
        if self.partial_sums:
            for other in owned[1:]:
                self.partial_sums.setdefault(other, FlatBuffer(self.layout, self.world.size))
            return [(next(iter(self.partial_sums.values())).flat, buffer.flat)]
        self.partial_sums[owned[0]] = buffer
        return []

    ExactReduction.add = add  # type: ignore[method-assign]


def order_between_ranks() -> None:
    """Add the sums of ranks up from left to right, in place of the tree's order."""

    def from_left(node: tuple[int, int], partial: Mapping[tuple[int, int], torch.Tensor]) -> torch.Tensor:
        first, *rest = (partial[part] for part in sorted(partial) if node[0] <= part[0] and part[1] <= node[1])
        for other in rest:
            first.add_(other)
        return first

    exchange.tree_sum = from_left  # type: ignore[attr-defined]


def small_regions() -> None:
    """No mistake: exchange in many regions, as on a GPU, while the backward pass runs."""
    REGION_NUMEL["cpu"] = 1000


def region_early() -> None:
    """Send a region at the first gradient that arrives, whatever it still lacks."""
    send_complete = GradientRegions.send_complete

    def at_once(self: GradientRegions, end: int) -> None:
        self.missing = [0] * len(self.missing)
        send_complete(self, end)

    GradientRegions.send_complete = at_once  # type: ignore[method-assign]
    # In line: a thread may be late enough to find what was missing.
    ThreadLane.start = lambda self, act: act()  # type: ignore[method-assign]


def lost_summand() -> None:
    """Leave the last micro-batch of a share out of all regions but the first."""
    add_sums = overlap.add_sums

    def forgetful(pending: list[tuple[torch.Tensor, torch.Tensor]], region: slice) -> None:
        if region.start is None or region.start == 0:
            add_sums(pending, region)

    overlap.add_sums = forgetful


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


def nan_once(at: int = 192) -> None:
    """Poison one step of a run that has not rolled back yet."""
    draw = RandomInputs.__call__

    def poisoned(
        self: RandomInputs, draws: Draws, label: torch.Tensor, images_seen: int, micro_batch: int
    ) -> tuple[Latent, dict[str, dict[str, torch.Tensor]]]:
        latent, parts = draw(self, draws, label, images_seen, micro_batch)
        if images_seen == at and not draws.rollbacks and micro_batch == 3:
            latent = replace(latent, z=latent.z * float("nan"))
        return latent, parts

    RandomInputs.__call__ = poisoned  # type: ignore[method-assign]


def labels_by_arrival() -> None:
    """Take labels by how many this process has read, in place of the rows of the samples."""
    read, arrived = LabelReader.__call__, [0]

    def by_arrival(self: LabelReader, rows: npt.NDArray[np.int64]) -> Labels:
        first = arrived[0]
        arrived[0] += len(rows)
        return read(self, (first + np.arange(len(rows))) % len(self.index.table))

    LabelReader.__call__ = by_arrival  # type: ignore[method-assign]


COLLAPSED = {"diversity": 0.01, "similarity": 0.8, "coverage": 0.01, "distance_to_data": 1.0}
HEALTHY = {"diversity": 0.9, "similarity": 0.0, "coverage": 0.9, "distance_to_data": 1.0}


def collapse_once() -> None:
    """Let the collapse monitor see a collapse from 160 images on, in a run that has not rolled back yet."""

    def measure(self: SampleGrids, weights: Mapping[str, torch.Tensor], request: Request) -> dict[str, float]:
        self.measured = self.real.images
        return COLLAPSED if request.images_seen >= 160 and not request.rollbacks else HEALTHY

    SampleGrids.measure_collapse = measure  # type: ignore[method-assign]


def measure_with(planted: str) -> None:
    """Have the process that measures beside training begin with something planted."""
    measurements.PROGRAM = "tests.planted_measuring"
    os.environ["PLANTED_MEASURING"] = planted


def collapse_beside() -> None:
    """The same, seen by the process that measures beside training."""
    measure_with("collapse_once")


def collapse_then_nan() -> None:
    """A collapse, seen in line or beside training, and then a step that is not finite, both before any rollback."""
    collapse_once()
    measure_with("collapse_once")
    nan_once(at=256)


def collapse_then_killed() -> None:
    """The same collapse, and a SIGKILL at 288 images, when what was saved there is durable."""
    measure_with("collapse_once")
    save = RankZero.save

    def last(self: RankZero, state: TrainState, wait: bool = False) -> bool:
        saved = save(self, state, wait)
        if state.images_seen == 288 and not state.rollbacks:
            self.wait_for_checkpoint()
            os.kill(os.getpid(), signal.SIGKILL)
        return saved

    RankZero.save = last  # type: ignore[method-assign]


def measuring_held() -> None:
    """No mistake: let measurements beside training take as long as the test wants."""
    measure_with("held")


def measuring_dies() -> None:
    """Let the process that measures end at its first request."""
    measure_with("dies")


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


def same_gpu() -> None:
    """No mistake of ours: let all ranks see the same single GPU, though there is none."""

    def pretended(environment: Mapping[str, str], node: str) -> RankPlace:
        found = gpu_places.own_place(environment, node)
        return replace(found, gpus=1, name="NVIDIA H100 80GB HBM3", uuid="one", bus="0000:19:00.0")

    process_group.own_place = pretended  # type: ignore[attr-defined]


def out_of_memory() -> None:
    """Let the last rank have too little memory in its third step, in the words of torch's allocator."""
    draw = RandomInputs.__call__
    words = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 39.39 GiB of which 1.06 GiB is "
        "free. Including non-PyTorch memory, this process has 38.31 GiB memory in use."
    )

    def hungry(
        self: RandomInputs, draws: Draws, label: torch.Tensor, images_seen: int, micro_batch: int
    ) -> tuple[Latent, dict[str, dict[str, torch.Tensor]]]:
        if images_seen == 64 and int(os.environ.get("WORLD_SIZE", "1")) == RANK + 1:
            raise torch.OutOfMemoryError(words)
        return draw(self, draws, label, images_seen, micro_batch)

    RandomInputs.__call__ = hungry  # type: ignore[method-assign]


MISTAKES = {
    f.__name__: f
    for f in (
        reduction_order,
        order_between_ranks,
        small_regions,
        region_early,
        lost_summand,
        lost_buffer,
        lost_average,
        lost_memory,
        vectors_by_passes,
        draw_by_rank,
        labels_by_arrival,
        live_statistics,
        nan_once,
        collapse_once,
        collapse_and_forget,
        collapse_beside,
        collapse_then_killed,
        collapse_then_nan,
        measuring_dies,
        measuring_held,
        migration_that_forgets,
        migration_to_other_bits,
        late_scalars,
        same_gpu,
        out_of_memory,
    )
}

if __name__ == "__main__":
    MISTAKES[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
