"""Steps as CUDA graphs beside the same steps kernel by kernel: equal bits, and times: `python -m bench.gpu_graphs`.

Each recipe is trained twice from the same weights, with one micro-batch and with two; lazy penalties are due in every
second step. The times are the medians of the steps after all kinds were recorded, each from its start on the host
until the device has done it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from statistics import median

import torch
import tyro

from bench.gpu_bits import Precision, make_updates
from bench.measure import machine, table
from launcher.doctor.memory import autocast, settle
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.distributed.numerical_environment import choose_kernels
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.fingerprint import fingerprint
from trainer.gan.recorded_step import CudaGraphs, Graphs, RecordedStep
from trainer.gan.state import TrainState
from trainer.losses.batch import Batch

STEPS = 12
TIMED = 6  # the last ones
EVERY = 2

GraphsOf = Callable[[TrainState], Graphs]
"""Makes what records the steps that train a state."""


@dataclass(frozen=True)
class Bench:
    """Compare both ways. Exit code 1: the bits differ, or a step could not be recorded."""

    recipes: tuple[str, ...] = ("dcgan-64", "sngan-64", "stylegan2-ada-64", "r3gan-64")
    precisions: tuple[Precision, ...] = ("no", "bf16")
    micro_batches: tuple[int, ...] = (1, 2)
    micro_batch_size: int = 8


@dataclass(frozen=True)
class Trained:
    """What became of one training."""

    bits: str
    ms: float
    """Of a step."""


def train(
    config: Config,
    device: torch.device,
    updates: Sequence[Sequence[Sequence[Batch]]],
    graphs_of: GraphsOf | None = None,
) -> Trained:
    """Train; without graphs, kernel by kernel.

    Raises:
        RuntimeError: a step cannot be recorded.
    """
    state = create_state(config, "graphs", device)
    step = assemble_step(config, state, reduce_exactly(config, World()), lambda: autocast(config, device))
    take = RecordedStep(step, graphs_of(state), required=True) if graphs_of else step
    times = []
    for of_step in updates:
        wait_for(device)
        began = time.perf_counter()
        take(of_step, lambda: False)
        wait_for(device)
        times.append(time.perf_counter() - began)
    return Trained(fingerprint(state.tensors(), {}), 1e3 * median(times[-TIMED:]))


def wait_for(device: torch.device) -> None:
    """Return when a device has done all that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def configuration(recipe: str, precision: Precision, micro_batches: int, size: int) -> Config:
    """Return the settings of one comparison, in which every kind of step comes early."""
    config = replace(settle(recipe_config(recipe)), mixed_precision=precision)
    penalties, augment = config.penalties, config.augment
    for f in fields(penalties):
        weighted = getattr(penalties, f.name)
        penalties = replace(penalties, **{f.name: replace(weighted, every=min(weighted.every, EVERY))})
    augment = replace(augment, interval=min(augment.interval, EVERY))
    config = replace(config, penalties=penalties, augment=augment)
    return replace(config, micro_batch_size=size, batch_size=size * micro_batches)


def compare(config: Config, device: torch.device, graphs_of: GraphsOf) -> tuple[Trained, Trained]:
    """Train kernel by kernel, then as graphs."""
    updates = make_updates(config, device, STEPS)
    return train(config, device, updates), train(config, device, updates, graphs_of)


def main(args: Bench) -> int:
    """Compare all, and return the exit code."""
    choose_kernels(True)
    device, failed = torch.device("cuda", 0), False

    def rows() -> Iterator[list[str]]:
        nonlocal failed
        for recipe in args.recipes:
            for precision in args.precisions:
                for count in args.micro_batches:
                    config = configuration(recipe, precision, count, args.micro_batch_size)
                    try:
                        plain, graphs = compare(config, device, lambda state: CudaGraphs(device))
                    except RuntimeError as error:
                        failed = True
                        yield [recipe, precision, str(count), str(error).partition("\n")[0], "", "", ""]
                        continue
                    failed |= plain.bits != graphs.bits
                    bits = "equal" if plain.bits == graphs.bits else "differ"
                    times = f"{plain.ms:.2f}", f"{graphs.ms:.2f}", f"{plain.ms / graphs.ms:.2f}"
                    yield [recipe, precision, str(count), bits, *times]

    print(f"{machine()}; {STEPS} steps of micro-batches of {args.micro_batch_size}\n")
    table(
        ["recipe", "mixed precision", "micro-batches", "bits", "ms by kernels", "ms as graphs", "times faster"], rows()
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Bench)))
