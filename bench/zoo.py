"""What each recipe costs: `python -m bench.zoo`. One process, one thread, float32.

At the recipe's own size: parameters, and the arithmetic of a step (D's updates and G's, backward and double backward
included) per real picture. Nothing is computed for it: tensors without data go through one or two micro-batches of the
recipe's size, and what each convolution and matrix product would do is added up.

At a small size, the same for all: memory, speed, and the shares of a step's time that go into what one might do
without. A turn is whole cycles of penalties that are not computed in every update. What is left out for a share takes
its draws with it. Recipes that are the same at the small size are measured once.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from math import ceil
from multiprocessing import get_context
from time import perf_counter
from typing import Annotated, TypeVar

import torch
import tyro
from accelerate import Accelerator

from bench.measure import machine, ratios, spread, table, take_turns
from bench.step import make_batches, never
from trainer.augment.base import AugmentSettings
from trainer.config.config import Config
from trainer.config.recipes import RECIPES, recipe_config
from trainer.core.fields import Refused
from trainer.core.randomness import Draws
from trainer.core.registry import one_of
from trainer.gan.assembly import assemble_step, create_state, reduce_as_asked
from trainer.gan.async_scalars import AsyncScalars
from trainer.gan.batches import RandomInputs
from trainer.gan.flops import flops_per_image, penalty_cycle, without_data
from trainer.gan.optimizers import update_average
from trainer.losses.batch import Batch
from trainer.losses.penalties import Penalties

CPU = torch.device("cpu")
CLASSES = 10  # where a recipe leaves their number to the data
TOP = 15  # operators in a profile
WHOLE = "whole"
WITHOUT = REDUCTION, AUGMENTATION, PENALTIES = "packets, exact reduction", "augmentation", "penalties"
PARTS = DRAWS, STEP, AVERAGE, LOGGING = "draws", "step", "EMA", "logging"
SHARES = (*WITHOUT, DRAWS, AVERAGE, LOGGING)
OWN = "parameters of G", "of D", "GFLOPs a picture"
AT_SMALL = "memory, MB", "images/s", *(f"{name}, %" for name in SHARES)
Name = Annotated[str, one_of(RECIPES)]
T = TypeVar("T")


@dataclass(frozen=True)
class Bench:
    """Measure what each recipe costs."""

    recipes: tuple[Name, ...] = ()
    """Default: all."""
    small: bool = False
    """Count parameters and arithmetic at the small size too."""
    turns: int = 3
    seconds: float = 2.0
    """At least, in one turn."""
    profile: Name | None = None
    """In place of all that: where the time of this recipe goes at the small size."""


def small(config: Config) -> Config:
    """Return the recipe at 32 pixels, with 16 channels at the picture's side and at most 64, in batches of 16."""
    network = replace(config.network, size=32, g_channels=16, d_channels=16, max_channels=64)
    return replace(config, recipe="custom", batch_size=16, micro_batch_size=8, network=network)


def labelled(config: Config) -> Config:
    """Return the settings for data with classes."""
    return replace(config, network=replace(config.network, classes=CLASSES if config.network.uses_classes else 0))


class Run:
    """A run on noise; a call trains, and returns the seconds that it took."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state = create_state(config, "bench", CPU)
        accelerator = Accelerator(cpu=True, mixed_precision="no")
        self.step = assemble_step(config, self.state, reduce_as_asked(config, accelerator), nullcontext)
        self.drawer, self.batches, self.late = RandomInputs(config), make_batches(config), AsyncScalars(CPU)
        self.average = list(self.state.ema.values())
        self.weights = [p.detach() for p in self.state.generator.parameters()]
        self.spent: list[dict[str, float]] = []

    def __call__(self, steps: int = 1) -> float:
        """Train as the trainer does, but for loading; what its parts take is added to `spent`."""
        self.spent.append(dict.fromkeys(PARTS, 0.0))
        for _ in range(steps):
            with self.part(DRAWS):
                updates = self.updates()
            with self.part(STEP):
                scalars = self.step(updates, never)
            seen = self.state.images_seen = self.state.images_seen + self.config.step_images
            with self.part(AVERAGE):
                update_average(self.average, self.weights, self.config.step_images, seen, self.config.optimizer)
            with self.part(LOGGING):
                self.late.push(seen, scalars, False)
        return sum(self.spent[-1].values())

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Take the time."""
        started = perf_counter()
        yield
        self.spent[-1][name] += perf_counter() - started

    def starts(self) -> range:
        """Return the pictures seen before each of D's updates in the next step."""
        seen = self.state.images_seen
        return range(seen, seen + self.config.step_images, self.config.batch_size)

    def updates(self) -> list[list[Batch]]:
        """Return the batches of a step: the same pictures every time, and new draws."""
        return [[self.batch(batch, start) for batch in self.batches] for start in self.starts()]

    def batch(self, batch: Batch, images_seen: int) -> Batch:
        """Draw what the update that starts at `images_seen` wants."""
        latent, draws = self.drawer(Draws(0, 0), batch.label, images_seen, batch.micro_batch)
        return replace(batch, images_seen=images_seen, latent=latent, draws=draws)


def own_cells(config: Config) -> list[str]:
    """Return the parameters of both networks, and the arithmetic of a step per real picture."""
    with without_data():
        state = create_state(config, "bench", CPU, draw=False)
    networks = state.generator, state.discriminator
    parameters = [f"{sum(p.numel() for p in network.parameters()):,}" for network in networks]
    return [*parameters, f"{flops_per_image(config) / 1e9:.3g}"]


def peak_memory() -> float:
    """Return the most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def small_cells(config: Config, turns: int, seconds: float) -> list[str]:
    """Return what a run takes, and which share of its time is due to its parts: in a process that did nothing yet."""
    torch.set_num_threads(1)
    before = peak_memory()
    run = Run(config)
    run()  # all penalties are due in the first step
    memory = peak_memory() - before
    changed = {
        REDUCTION: replace(config, reduction="ddp"),  # of one process: autograd adds up, and nothing else happens
        AUGMENTATION: replace(config, augment=AugmentSettings()),
        PENALTIES: replace(config, penalties=Penalties()),
    }
    others = {name: Run(other) for name, other in changed.items() if other != config}
    take_turns(others, 1)
    steps = penalty_cycle(config)
    steps *= ceil(seconds / (steps * run()))
    times = take_turns({name: partial(one, steps) for name, one in {WHOLE: run, **others}.items()}, turns)
    shares = {name: [1 - r for r in ratios(times[name], times[WHOLE])] for name in others}
    for part in PARTS:
        shares[part] = ratios([spent[part] for spent in run.spent[-turns:]], times[WHOLE])
    speeds = [steps * config.step_images / s for s in times[WHOLE]]
    cells = [spread([100 * share for share in shares[name]], 1) if name in shares else "" for name in SHARES]
    return [f"{memory:.0f}", spread(speeds, 1), *cells]


@cache
def anew(function: Callable[..., T], *args: object) -> T:
    """Return what a function gives in a new process, which shares neither memory nor tensors without data."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def rows(configs: dict[str, Config], args: Bench) -> Iterator[Sequence[str]]:
    """Yield a recipe's row when it was measured."""
    for name, config in configs.items():
        counted = small(config) if args.small else config
        yield name, *anew(own_cells, counted), *anew(small_cells, small(config), args.turns, args.seconds)


def profile(config: Config) -> Iterator[Sequence[str]]:
    """Yield the operators that take most of the time themselves."""
    torch.set_num_threads(1)
    run, steps = Run(config), penalty_cycle(config)
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        run(steps)
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    for event in events[:TOP]:
        time, calls = event.self_cpu_time_total, event.count / steps
        yield event.key, f"{100 * time / total:.1f}", f"{time / steps / 1e3:.2f}", f"{calls:.1f}"


def main(args: Bench) -> None:
    names = [args.profile] if args.profile else args.recipes or RECIPES
    try:
        configs = {name: labelled(recipe_config(name)) for name in names}
    except Refused as error:
        raise SystemExit(str(error)) from None
    print(f"{machine()}; 1 process, 1 thread\n")
    if args.profile:
        head = [f"{args.profile}, small", "% of the time", "ms a step", "calls a step"]
        table(head, profile(small(configs[args.profile])))
    else:
        table([f"{args.turns} turns", *OWN, *AT_SMALL], rows(configs, args))


if __name__ == "__main__":
    main(tyro.cli(Bench))
