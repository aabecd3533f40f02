"""From settings to the parts of a training process."""

from __future__ import annotations

import os
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from trainer.config import Config
from trainer.ddp import DdpReduction
from trainer.objectives import OBJECTIVES
from trainer.packet import Layout
from trainer.reduction import ExactReduction, Reduction
from trainer.settings import Refused
from trainer.state import TrainState
from trainer.step import D_SCALARS, G_SCALARS, GanStep
from trainer.world import World


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


def reduction(
    config: Config, network: nn.Module, scalars: tuple[str, ...], world: World, accelerator: Accelerator
) -> Reduction:
    """Return the reduction that the settings ask for."""
    if config.reduction == "ddp":
        return DdpReduction(Layout(network, scalars, with_gradients=False), config.micro_batches, world, accelerator)
    layout = Layout(network, scalars)
    return ExactReduction(layout, torch.compile(network) if config.compile else network, config.micro_batches, world)


def assemble(config: Config, state: TrainState, accelerator: Accelerator) -> GanStep:
    """Return the step that trains `state`."""
    world = world_of(accelerator)
    return GanStep(
        reduction(config, state.generator, G_SCALARS, world, accelerator),
        reduction(config, state.discriminator, D_SCALARS, world, accelerator),
        (state.g_optimizer, state.d_optimizer),
        (state.g_scaler, state.d_scaler),
        OBJECTIVES[config.objective],
        accelerator.autocast,
    )
