"""How many kernels a step starts: `python -m bench.launches`, at each recipe's own size, on tensors without data.

A step is D's updates and G's from draws that are there already, with every penalty due, in float32, of one micro-batch
and of two. Counted are the calls of ATen operators that read or write a tensor's elements: views and allocations do
not count, and an operator on a list of tensors (`_foreach_…`, fused Adam) counts once. Such a count is not that of
kernels: a convolution may start several, and a list of many tensors too. It is the same on every machine, and it rises
and falls with what the host has to do for a step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any
from unittest import mock

import torch
import tyro
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure import table
from trainer.config.recipes import RECIPES, recipe_config
from trainer.core.registry import one_of
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.flops import empty_batches
from trainer.gan.step import GanStep
from trainer.losses.batch import Batch

META = torch.device("meta")
CLASSES = 10  # where a recipe leaves their number to the data
MICRO_BATCHES = 1, 2
TOP = 25  # operators in a profile
# They compute nothing; what else has no elements to write is a view, which says so itself.
FREE = (
    *("prim::device", "profiler::", "aten::promote_types", "aten::empty", "aten::new_empty"),
    *("aten::detach", "aten::_unsafe_view", "aten::unsqueeze_"),
)
Name = Annotated[str, one_of(RECIPES)]
Kernel = tuple[tuple[int, ...], int]
"""Shape of a convolution's weight, and in how many groups it is."""


@dataclass(frozen=True)
class Bench:
    """Count what each recipe's step starts."""

    recipes: tuple[Name, ...] = ()
    """Default: all."""
    profile: Name | None = None
    """In place of all that: the operators of this recipe's step."""


class Launches(TorchDispatchMode):
    """Counts operators by name, and convolutions and their backward passes by their weights."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not
        self.operators: Counter[str] = Counter()
        self.kernels: Counter[Kernel] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if not func.is_view and not name.startswith(FREE):
            self.operators[name.split(".")[0]] += 1
        if func.overloadpacket is torch.ops.aten.convolution:
            self.kernels[tuple(args[1].shape), args[8]] += 1
        elif func.overloadpacket is torch.ops.aten.convolution_backward:
            self.kernels[tuple(args[2].shape), args[9]] += 1
        return func(*args, **(kwargs or {}))


def shape_only(tensor: Tensor) -> Tensor:
    """Return a tensor of this shape and memory layout without data."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)


@dataclass(frozen=True)
class EmptyStep:
    """A step of a recipe, of so many of its micro-batches, on tensors without data; every penalty is due."""

    step: GanStep
    updates: list[list[Batch]]

    @staticmethod
    def of(name: str, micro_batches: int) -> EmptyStep:
        """Assemble it."""
        config = recipe_config(name)
        network = replace(config.network, classes=CLASSES if config.network.uses_classes else 0)
        batch_size = min(micro_batches, config.micro_batches) * config.micro_batch_size
        config = replace(config, network=network, batch_size=batch_size, compile=False)
        with META:
            state = create_state(config, "launches", META, draw=False)
        step = assemble_step(config, state, reduce_exactly(config, World()), nullcontext)
        return EmptyStep(step, [[one.map(shape_only) for one in update] for update in empty_batches(config, 0)])

    def __call__(self) -> None:
        """Take it."""
        self.step(self.updates, lambda: False)


@contextmanager
def counting() -> Iterator[Launches]:
    """Count what networks on the meta device do inside."""
    # autocast knows no precision for the meta device, and here it is off anyway.
    with mock.patch("torch.autocast", return_value=nullcontext()), Launches() as counted:
        yield counted


def count_launches(name: str, micro_batches: int = 1) -> Launches:
    """Count a step of a recipe."""
    step = EmptyStep.of(name, micro_batches)
    for _ in range(2):  # what is made once and kept is there from the second step on
        with counting() as counted:
            step()
    return counted


def row(name: str) -> Sequence[str]:
    """Return a recipe's row."""
    counts = [count for count in MICRO_BATCHES if count <= recipe_config(name).micro_batches]
    return name, *(f"{count_launches(name, count).operators.total():,}" for count in counts)


def main(args: Bench) -> None:
    print(f"torch {torch.__version__}, nothing computed\n")
    if args.profile:
        operators = count_launches(args.profile).operators.most_common(TOP)
        table([args.profile, "launches"], ((name, f"{count:,}") for name, count in operators))
    else:
        table(["launches of a step", "1 micro-batch", "2 micro-batches"], map(row, args.recipes or RECIPES))


if __name__ == "__main__":
    main(tyro.cli(Bench))
