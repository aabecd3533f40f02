"""How well a step scales over GPUs, by a model, and how well that foretells gloo here: `python -m bench.scaling`.

The model. A step starts so many kernels (bench/launches.py) and does so much arithmetic (trainer/gan/flops.py); it
takes the longer of both at the stated rates. The exchange moves the flat buffers over two kinds of links, at the stated
bandwidths, with a stated time for each collective. It hides behind the backward pass of the last micro-batch, half of
that micro-batch's time, but for its last region; that of StyleGAN2's generator, whose gradients are complete only at
the end, hides behind nothing. Efficiency is the time of one GPU's step over that of N, with as many micro-batches a
GPU. No GPU was timed: errors of a factor of two in the rates are likely.

The check. On CPUs the same sum is made of what is measured here: processes that train apart, and the bandwidth between
them for another size of buffer; nothing hides. It is compared with the time of processes that train together.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import tyro

from bench.launches import CLASSES, EmptyStep, count_launches
from bench.measure import Times, machine, ratios, seconds, spread, table, take_turns
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.distributed.exchange import RegionMean, exchange_levels
from trainer.distributed.regions import REGION_NUMEL
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.flops import empty_batches, flops_per_image
from trainer.networks import GENERATORS

RECIPES = (("dcgan-64", 1), ("dcgan-64", 4), ("stylegan2-ada-256", 1), ("biggan-128", 1), ("r3gan-256", 1))
"""Recipes, and micro-batches a GPU."""
WORLDS = 8, 32, 256
TOGETHER, APART, LINK = "together", "apart", "link"


@dataclass(frozen=True)
class Hardware:
    """Rates of a GPU and its links: those of an H100 with NVLink and a 400 Gbit/s card for each."""

    node_size: int = 8
    launch_s: float = 6e-6
    flops_s: float = 2e14
    """Of convolutions in bf16: a fifth of the peak."""
    inside_bytes_s: float = 250e9
    between_bytes_s: float = 40e9
    collective_s: float = 20e-6


@dataclass(frozen=True)
class StepParts:
    """What a step of a recipe consists of."""

    updates: int
    """Of both networks."""
    launches: tuple[int, int]
    """With one micro-batch, and with two."""
    flops: float
    """Of a micro-batch."""
    bytes: tuple[int, ...]
    """That are exchanged, one number an update; the last is G's."""
    late: bool
    """G's gradients are complete only at the end of its backward pass."""

    @staticmethod
    def of(name: str) -> StepParts:
        """Count them."""
        config = recipe_config(name)
        classes = CLASSES if config.network.uses_classes else 0
        config = replace(config, network=replace(config.network, classes=classes))
        step = EmptyStep.of(name, 1).step
        g, d = (4 * update.reduction.layout.numel for update in (step.g, step.d))
        one, two = (count_launches(name, count).operators.total() for count in (1, 2))
        flops = flops_per_image(config) * config.micro_batch_size * config.d_steps
        exchanged, late = (*[d] * config.d_steps, g), GENERATORS[config.generator].gradients_last
        return StepParts(config.d_steps + 1, (one, two), flops, exchanged, late)

    def compute_s(self, count: int, on: Hardware) -> float:
        """Return the seconds of a step of so many micro-batches on one GPU."""
        one, two = self.launches
        return max((one + (count - 1) * (two - one)) * on.launch_s, count * self.flops / on.flops_s)

    def exposed_s(self, count: int, world: int, on: Hardware) -> float:
        """Return the seconds of a step's exchange that nothing hides."""
        backward_s = self.compute_s(count, on) / count / self.updates / 2
        region = 4 * REGION_NUMEL["cuda"]
        *of_d, of_g = (
            max(exchange_s(size, world, on) - backward_s, exchange_s(min(size, region), world, on))
            for size in self.bytes
        )
        return sum(of_d) + (exchange_s(self.bytes[-1], world, on, whole=True) if self.late else of_g)

    def efficiency(self, count: int, world: int, on: Hardware) -> float:
        """Return how much of each GPU's time is computing."""
        compute_s = self.compute_s(count, on)
        return compute_s / (compute_s + self.exposed_s(count, world, on))


def exchange_s(size: int, world: int, on: Hardware, whole: bool = False) -> float:
    """Return the seconds of a mean of `size` bytes over the ranks, in regions or as a whole."""
    inside = min(world, on.node_size)
    nodes = world // inside
    collectives = 2 * (inside > 1) + 2 * (nodes > 1)
    regions = 1 if whole else max(1, size // (4 * REGION_NUMEL["cuda"]))
    moved_inside = 2 * size * (inside - 1) / inside
    moved_between = 2 * size / inside * (nodes - 1) / nodes
    return (
        moved_inside / on.inside_bytes_s + moved_between / on.between_bytes_s + regions * collectives * on.collective_s
    )


@dataclass(frozen=True)
class Bench:
    """Foretell, and check."""

    recipe: str = "dcgan-64"
    """The one that the check trains."""
    micro_batch_size: int = 8
    processes: tuple[int, ...] = (2, 4)
    turns: int = 7
    model: bool = True
    """Count the recipes, too."""


def own_step(config: Config, world: World) -> Callable[[], object]:
    """Return a step over this process's share."""
    state = create_state(config, "bench", torch.device("cpu"))
    step = assemble_step(config, state, reduce_exactly(config, world), nullcontext)
    share = [[update[j] for j in world.share(config.micro_batches)] for update in empty_batches(config, 0)]
    return lambda: step(share, lambda: False)


def process(rank: int, size: int, args: Bench, folder: str) -> None:
    """Measure in one of the processes; the first writes down its times, and how many bytes a step exchanges."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    world, config = World(rank, size), recipe_config(args.recipe)
    config = replace(config, micro_batch_size=args.micro_batch_size, batch_size=2 * args.micro_batch_size)
    buffer = torch.zeros(1_000_000 * size)
    mean = RegionMean(exchange_levels(world, size), slice(0, len(buffer)), buffer)
    acts: dict[str, Callable[[], object]] = {
        TOGETHER: own_step(replace(config, batch_size=size * config.batch_size), world),
        APART: own_step(config, World()),
        LINK: lambda: mean([buffer], buffer, size),
    }

    def measured(act: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            dist.barrier()
            # Until all are done: a process that trains apart waits for nobody else.
            return seconds(lambda: (act(), dist.barrier()))

        return measure

    candidates = {name: measured(act) for name, act in acts.items()}
    take_turns(candidates, 2)
    times = take_turns(candidates, args.turns)
    if world.main:
        moved = sum(StepParts.of(args.recipe).bytes)
        (Path(folder) / "times.json").write_text(json.dumps([times, moved / (4 * len(buffer))]))
    dist.barrier()
    dist.destroy_process_group()


def check(size: int, args: Bench) -> Sequence[str]:
    """Return a row: the time of a step together, foretold and measured."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, (size, args, folder), nprocs=size)  # type: ignore[attr-defined,no-untyped-call]  # torch
        times: Times
        times, buffers = json.loads((Path(folder) / "times.json").read_text())
    foretold = [apart + link * buffers for apart, link in zip(times[APART], times[LINK], strict=True)]
    cells = [spread([s * 1e3 for s in each], 0) for each in (times[APART], foretold, times[TOGETHER])]
    off = median(foretold) / median(times[TOGETHER])
    return f"{size} processes", *cells, f"{off:.2f}", spread(ratios(foretold, times[TOGETHER]))


def foretell(name: str, count: int, on: Hardware) -> Sequence[str]:
    """Return a recipe's row."""
    parts = StepParts.of(name)
    exchanges = (sum(exchange_s(size, world, on) for size in parts.bytes) for world in WORLDS)
    efficiencies = (parts.efficiency(count, world, on) for world in WORLDS)
    return (
        *(name, str(count), f"{sum(parts.bytes) / 1e6:,.0f}", f"{parts.compute_s(count, on) * 1e3:,.1f}"),
        *(f"{s * 1e3:,.1f}" for s in exchanges),
        *(f"{e:.2f}" for e in efficiencies),
    )


def main(args: Bench) -> None:
    print(f"{machine()}; 1 thread a process\n")
    on = Hardware()
    if args.model:
        print(f"stated rates: {on}\n")
        head = [
            "recipe",
            "micro-batches a GPU",
            "MB exchanged",
            "compute, ms",
            *(f"exchange on {n}, ms" for n in WORLDS),
        ]
        table([*head, *(f"efficiency on {n}" for n in WORLDS)], (foretell(*one, on) for one in RECIPES))
    head = [
        f"{args.recipe}, {args.turns} turns",
        "apart, ms",
        "foretold, ms",
        "together, ms",
        "foretold ÷ together",
        "by turns",
    ]
    table(head, (check(size, args) for size in args.processes))


if __name__ == "__main__":
    main(tyro.cli(Bench))
