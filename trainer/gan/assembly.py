"""From settings to the parts of a training process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import parametrize

from trainer.config.compatibility import graphs_problem
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.migration import identity_hashes
from trainer.distributed.cpu_affinity import bind_to_gpu
from trainer.distributed.ddp import DdpReduction
from trainer.distributed.flat_buffer import FlatLayout
from trainer.distributed.numerical_environment import choose_kernels, gpu_has_bf16
from trainer.distributed.process_group import join_process_group
from trainer.distributed.reduction import ExactReduction, Reduction
from trainer.distributed.regions import WHOLE
from trainer.distributed.world import World
from trainer.gan.network_update import NetworkUpdate
from trainer.gan.optimizers import Adam
from trainer.gan.recorded_step import CudaGraphs, RecordedStep
from trainer.gan.state import TrainState
from trainer.gan.step import D_SCALARS, G_SCALARS, GanStep
from trainer.losses.discriminator_pass import Models
from trainer.losses.objectives import OBJECTIVES, TopK
from trainer.networks import build_discriminator, build_generator, initialise
from trainer.networks.base import Network, named_weights

log = logging.getLogger(__name__)

# torch's own, twice as large, is not finite in fp16, and gradient penalties multiply by it in fp16.
INITIAL_LOSS_SCALE = 2.0**15

Autocast = Callable[[], AbstractContextManager[None]]


def set_up_device(config: Config, node: str) -> Accelerator:
    """Join the process group and fix what the bits depend on: threads, and the choice of kernels.

    Args:
        config: of the run.
        node: the name of this one, for messages.

    Raises:
        Refused: the device does not have the wanted precision, or the ranks are not one a GPU.
        RuntimeError: NCCL or gloo fails.
    """
    # Before anything starts threads or processes, which inherit the cores.
    bind_to_gpu(*join_process_group(node))
    # DDP must not broadcast buffers between two forward passes: backward would find them changed.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        cpu=not torch.cuda.is_available(),  # without it, several processes on CPUs are no group for accelerate
        kwargs_handlers=[ddp],
    )
    if accelerator.device.type == "cpu":
        refuse_on_cpu(config)
        torch.set_num_threads(1)  # their number changes the bits, and accelerate sets it as well
    elif config.mixed_precision == "bf16" and not gpu_has_bf16(accelerator.device.index):
        log.warning(
            "this GPU has no bf16 and computes it in float32, at that speed: --mixed-precision no suits it better"
        )
    choose_kernels(config.deterministic)
    if config.compile:
        torch.use_deterministic_algorithms(config.deterministic, warn_only=True)  # tells the compiler, too
    return accelerator


def refuse_on_cpu(config: Config) -> None:
    """Refuse what only a GPU can do.

    Raises:
        Refused: the settings ask for fp16, and accelerate would train in fp32 without a word, or for CUDA graphs.
    """
    if config.mixed_precision == "fp16":
        raise Refused("mixed_precision fp16 needs a GPU: on a CPU use bf16 or no")
    if config.cuda_graphs == "on":
        raise Refused("cuda_graphs on needs a GPU: on a CPU use auto or off")


def world_of(accelerator: Accelerator) -> World:
    """Return this process's place."""
    return World(accelerator.process_index, accelerator.num_processes)


def create_state(config: Config, dataset: str, device: torch.device, draw: bool = True) -> TrainState:
    """Return the state of a run that has seen nothing; every bit of it follows from the settings.

    Args:
        config: of the run.
        dataset: hash of the dataset's index.
        device: of the networks.
        draw: draw the weights. Where a checkpoint is loaded next that is wasted, and takes long for large networks.
    """
    generator = build_generator(config.generator, config.network)
    discriminator = build_discriminator(config.discriminator, config.network)
    for network, role in ((generator, "generator"), (discriminator, "discriminator")):
        if draw:
            initialise(network, config.seed, role)
        if config.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        network.to(device)
    fp16 = config.mixed_precision == "fp16"
    return TrainState(
        generator,
        discriminator,
        {name: weight.detach().clone() for name, weight in named_weights(generator)},  # it begins at the drawn weights
        Adam(generator, config.optimizer.g_lr, config.optimizer),
        Adam(discriminator, config.optimizer.d_lr, config.optimizer),
        GradScaler(device.type, INITIAL_LOSS_SCALE, enabled=fp16),
        GradScaler(device.type, INITIAL_LOSS_SCALE, enabled=fp16),
        {name: torch.tensor(value, device=device) for name, value in config.initial_scalars().items()},
        dataset,
        identity_hashes(config),
    )


def uses_graphs(config: Config, world: World, device: torch.device) -> bool:
    """Tell whether the steps are taken as CUDA graphs."""
    if device.type != "cuda" or config.cuda_graphs == "off":
        return False
    # Among several ranks the exchange has to wait for the end of a graph: that it costs less has not been measured.
    return config.cuda_graphs == "on" or (world.size == 1 and graphs_problem(config) is None)


def with_graphs(step: GanStep, config: Config, world: World, device: torch.device) -> GanStep | RecordedStep:
    """Return what takes steps: as CUDA graphs where the settings and the device have them."""
    if not uses_graphs(config, world, device):
        return step
    return RecordedStep(step, CudaGraphs(device), required=config.cuda_graphs == "on")


Reduce = Callable[[FlatLayout], Reduction]
"""Makes the reduction of a network's flat buffers."""


def reduce_exactly(config: Config, world: World) -> Reduce:
    """Return the exact reduction for all micro-batches of the run."""

    def reduce(layout: FlatLayout) -> Reduction:
        # Only this callable is compiled. What a penalty differentiates runs as it is (NetworkUpdate.called).
        called = torch.compile(layout.network) if config.compile else layout.network
        overlap = not uses_graphs(config, world, layout.device)
        return ExactReduction(layout, called, config.micro_batches, world, regions_of(layout.network), overlap)

    return reduce


def regions_of(network: nn.Module) -> int | None:
    """Return the elements of a region of a network's exchange; None: what suits the device."""
    # Where no region could leave before the others, one for all needs the fewest collectives.
    return WHOLE if isinstance(network, Network) and network.gradients_last else None


def reduce_as_asked(config: Config, accelerator: Accelerator) -> Reduce:
    """Return the reduction that the settings ask for."""
    world = world_of(accelerator)
    if config.reduction == "exact":
        return reduce_exactly(config, world)
    return lambda layout: DdpReduction(layout, config.micro_batches, world, accelerator)


def network_update(config: Config, state: TrainState, name: Literal["g", "d"], reduce: Reduce) -> NetworkUpdate:
    """Return one of the two networks with all that its update needs."""
    g = name == "g"
    penalties = [active for active in config.penalties.active() if active.penalty.network_name == name]
    scalars = (G_SCALARS if g else D_SCALARS) + tuple(s for active in penalties for s in active.scalars)
    network = state.generator if g else state.discriminator
    # DDP carries the gradients itself, in buckets of its own.
    layout = FlatLayout(network, scalars, config.reduction == "exact", config.batch_size)
    return NetworkUpdate(
        name,
        reduce(layout),
        state.g_optimizer if g else state.d_optimizer,
        state.g_scaler if g else state.d_scaler,
        config.optimizer,
        penalties,
        state.running_scalars,
        config.penalty_due,
    )


def caching_autocast(autocast: Autocast) -> Autocast:
    """Return a context in which each weight is cast and normalised once."""

    @contextmanager
    def once() -> Iterator[None]:
        with autocast(), parametrize.cached():
            yield

    return once


def assemble_step(config: Config, state: TrainState, reduce: Reduce, autocast: Autocast) -> GanStep:
    """Return the step that trains `state`."""
    state.generator.checkpointing = state.discriminator.checkpointing = config.activation_checkpointing
    return GanStep(
        network_update(config, state, "g", reduce),
        network_update(config, state, "d", reduce),
        OBJECTIVES[config.objective],
        TopK(config.top_k, config.top_k_images),
        Models(state.generator, state.discriminator, config.augment_pipeline(), state.running_scalars),
        caching_autocast(autocast),
        config.g_batches,
    )
