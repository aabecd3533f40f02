"""From settings to the parts of a training process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch.nn.utils import parametrize

from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.distributed.ddp import DdpReduction
from trainer.distributed.flat_buffer import Layout
from trainer.distributed.reduction import ExactReduction, Reduction
from trainer.distributed.world import World
from trainer.gan.network_update import Player
from trainer.gan.state import TrainState
from trainer.gan.step import D_SCALARS, G_SCALARS, GanStep
from trainer.losses.discriminator_pass import Game
from trainer.losses.objectives import OBJECTIVES, TopK

Autocast = Callable[[], AbstractContextManager[None]]


def set_up_device(config: Config) -> Accelerator:
    """Join the process group and fix what the bits depend on: threads, and the choice of kernels.

    Raises:
        Refused: the device does not have the wanted precision.
    """
    if config.deterministic:
        # Read by cuBLAS when it starts; without it, its workspaces make results depend on the stream.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # DDP must not broadcast buffers between two forward passes: backward would find them changed.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        cpu=not torch.cuda.is_available(),  # without it, several processes on CPUs are no group for accelerate
        kwargs_handlers=[ddp],
    )
    if accelerator.device.type == "cpu":
        if config.mixed_precision == "fp16":
            refuse_fp16()
        torch.set_num_threads(1)  # their number changes the bits, and accelerate sets it as well
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
    torch.backends.cudnn.deterministic = config.deterministic
    torch.backends.cudnn.benchmark = not config.deterministic
    return accelerator


def refuse_fp16() -> NoReturn:
    """Refuse fp16 without a GPU: accelerate would train in fp32 without a word."""
    raise Refused("mixed_precision fp16 needs a GPU: on a CPU use bf16 or no")


def world_of(accelerator: Accelerator) -> World:
    """Return this process's place."""
    return World(accelerator.process_index, accelerator.num_processes)


Reduce = Callable[[Layout], Reduction]
"""Says how the packets of a layout become their mean."""


def reduce_exactly(config: Config, world: World) -> Reduce:
    """Return the exact reduction for all micro-batches of the run."""

    def reduce(layout: Layout) -> Reduction:
        called = torch.compile(layout.network) if config.compile else layout.network
        return ExactReduction(layout, called, config.micro_batches, world)

    return reduce


def reduce_as_asked(config: Config, accelerator: Accelerator) -> Reduce:
    """Return the reduction that the settings ask for."""
    world = world_of(accelerator)
    if config.reduction == "exact":
        return reduce_exactly(config, world)
    return lambda layout: DdpReduction(layout, config.micro_batches, world, accelerator)


def player(config: Config, state: TrainState, name: Literal["g", "d"], reduce: Reduce) -> Player:
    """Return one of the two networks with all that its update needs."""
    g = name == "g"
    penalties = [active for active in config.penalties.active() if active.penalty.player == name]
    scalars = (G_SCALARS if g else D_SCALARS) + tuple(s for active in penalties for s in active.scalars)
    network = state.generator if g else state.discriminator
    layout = Layout(network, scalars, with_gradients=config.reduction == "exact")
    return Player(
        name,
        reduce(layout),
        state.g_optimizer if g else state.d_optimizer,
        state.g_scaler if g else state.d_scaler,
        config.optimizer,
        penalties,
        state.memory,
        config.step_images if g else config.batch_size,
    )


def precision(autocast: Autocast) -> Autocast:
    """Return a context in which each weight is cast and normalised once."""

    @contextmanager
    def once() -> Iterator[None]:
        with autocast(), parametrize.cached():
            yield

    return once


def assemble(config: Config, state: TrainState, reduce: Reduce, autocast: Autocast) -> GanStep:
    """Return the step that trains `state`."""
    return GanStep(
        player(config, state, "g", reduce),
        player(config, state, "d", reduce),
        OBJECTIVES[config.objective],
        TopK(config.top_k, config.top_k_images),
        Game(state.generator, state.discriminator, config.disguise(), state.memory),
        precision(autocast),
    )
