"""The largest micro-batch of a recipe that fits into a GPU, found by trying, and how full the GPU is with it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch

from launcher.doctor.finding import Finding, format_bytes
from trainer.config.batch_scaling import layouts
from trainer.config.config import Config
from trainer.config.recipes import Recipe
from trainer.core.fields import Refused
from trainer.distributed.numerical_environment import best_precision, state_float32_kernels
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.flops import empty_batches, penalties_due, penalty_cycle
from trainer.gan.step import GanStep
from trainer.launch.out_of_memory import is_out_of_memory

MOST = 4096  # pictures of a micro-batch: beyond it nothing becomes faster
NEARLY_FULL = 0.9  # fragments and NCCL's buffers want the rest
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

Trial = Callable[[int], int]
"""Trains with micro-batches of a size, and returns the bytes that it had at most; or has too little memory."""


@dataclass(frozen=True)
class Fits:
    """What was found of one recipe."""

    bytes_of: dict[int, int]
    """By size of the micro-batch: of each that fits and was tried."""
    total_bytes: int
    device: str

    @property
    def largest(self) -> int:
        """The largest micro-batch that fits; 0: none does."""
        return max(self.bytes_of, default=0)

    def full(self, size: int) -> str:
        """Say how full the GPU is with micro-batches of a size."""
        used = self.bytes_of[size]
        return f"{used / self.total_bytes:.0%} ({format_bytes(used)} of {format_bytes(self.total_bytes)})"


def find_largest(trial: Trial, unit: int, most: int = MOST) -> dict[int, int]:
    """Return the bytes of each size that was tried and fits; the largest is the largest multiple of `unit` that does.

    Args:
        trial: as above.
        unit: the smallest size that the settings allow; only multiples are tried.
        most: no larger ones are tried.
    """
    found: dict[int, int] = {}

    def fits(size: int) -> bool:
        try:
            found[size] = trial(size)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    size = unit
    while size <= most and fits(size):
        size *= 2
    low, high = max(found, default=0), min(size, most // unit * unit + unit)
    while high - low > unit:
        middle = (low + high) // 2 // unit * unit
        low, high = (middle, high) if fits(middle) else (low, middle)
    return found


def smallest_size(config: Config) -> int:
    """Return the smallest micro-batch that the settings allow.

    Raises:
        Refused: they allow none up to 64.
    """
    for size in range(1, 65):
        try:
            sized(config, size).check()
        except Refused:
            continue
        return size
    config.check()
    raise Refused("these settings allow no micro-batch of up to 64 pictures")


def sized(config: Config, size: int, micro_batches: int = 1) -> Config:
    """Return the settings with some micro-batches of a size."""
    return replace(config, micro_batch_size=size, batch_size=size * micro_batches)


def try_on(device: torch.device, config: Config, size: int) -> int:
    """Train some steps with micro-batches of a size, and return the most bytes that tensors had on the GPU.

    Raises:
        OutOfMemoryError: there are too few.
    """
    cuda = device.type == "cuda"
    try:
        # What is left of a trial that did not fit.
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        # A rank's share of one keeps the graph of the fakes, of more has sums besides.
        for micro_batches in (1, 2):
            train_steps(sized(config, size, micro_batches), device)
        return torch.cuda.max_memory_allocated(device) if cuda else 0
    finally:
        gc.collect()


def train_steps(config: Config, device: torch.device) -> None:
    """Train one step of each kind, by the penalties that are due, and another one: optimizers have states by then."""
    state = create_state(config, "memory", device, draw=False)
    step = assemble_step(config, state, reduce_exactly(config, World()), lambda: autocast(config, device))
    for images_seen in (*kinds_of_steps(config, step), 0):
        state.images_seen = images_seen
        step(
            [[one.map(lambda t: t.to(device)) for one in update] for update in empty_batches(config, images_seen)],
            lambda: False,
        )


def kinds_of_steps(config: Config, step: GanStep) -> Iterator[int]:
    """Yield where steps begin that differ by the penalties that are due in them."""
    known = set()
    for number in range(penalty_cycle(config)):
        images_seen = number * config.step_images
        kind = penalties_due(step, config, images_seen)
        if kind not in known:
            known.add(kind)
            yield images_seen


def autocast(config: Config, device: torch.device) -> AbstractContextManager[None]:
    """Return the context of the settings' precision."""
    dtype = DTYPES.get(config.mixed_precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def find_on_first_gpu(config: Config) -> Fits:
    """Find the largest micro-batch on this machine's first GPU.

    Raises:
        Refused: there is none.
    """
    if not torch.cuda.is_available():
        raise Refused(
            "there is no GPU here to try --recipe on; on Slurm: srun --gpus=1 python -m launcher doctor --recipe …"
        )
    device = torch.device("cuda", 0)
    state_float32_kernels()
    total = torch.cuda.mem_get_info(device)[1]
    settled = settle(config)
    unit = smallest_size(settled)
    found = find_largest(lambda size: try_on(device, settled, size), unit)
    if config.micro_batch_size < max(found, default=0) and config.micro_batch_size not in found:
        found[config.micro_batch_size] = try_on(device, settled, config.micro_batch_size)
    return Fits(found, total, torch.cuda.get_device_name(device))


def settle(config: Config) -> Config:
    """Return the settings with what data and machine would decide."""
    if config.mixed_precision == "auto":
        config = replace(config, mixed_precision=best_precision())
    if config.network.uses_classes and not config.network.classes:
        # What the labels are hardly changes what is used.
        config = replace(config, network=replace(config.network, classes=10, label_columns="", label_kinds=""))
    return replace(config, compile=False)


def judge_memory(config: Config, fits: Fits) -> Finding:
    """Judge the settings' own micro-batch."""
    own, most = config.micro_batch_size, fits.largest
    if not most:
        return Finding(
            *("memory", "problem", f"{fits.device}: not one picture at a time fits", "training would end at once"),
            "set --mixed-precision bf16, or smaller --network.g-channels and --network.d-channels",
        )
    measured = f"{fits.device}: micro-batches of up to {most} fit"
    if own > most:
        todo = f"set --micro-batch-size {largest_divisor(config.batch_size, most)}"
        return Finding("memory", "problem", f"{measured}, of {own} do not", "training would end at once", todo)
    measured += f"; of {own} they fill {fits.full(own)}, of {most} {fits.full(most)}"
    if fits.bytes_of[own] > NEARLY_FULL * fits.total_bytes:
        todo = f"set --micro-batch-size {largest_divisor(config.batch_size, own - 1)}"
        return Finding("memory", "warning", measured, "little is left for NCCL and fragments", todo)
    return Finding(
        "memory", "ok", measured, "the size is a part of a new run's identity: BatchNorm and penalties see it"
    )


def judge_layouts(recipe: Recipe, fits: Fits) -> Finding:
    """Judge the batch and micro-batch that a recipe names for each number of GPUs."""
    said, too_large = [], []
    for layout in layouts(recipe.config, recipe.rule):
        size = layout.config.micro_batch_size
        # More micro-batches on a GPU take no more of it: they come one after the other.
        filled = f", fills {fits.full(size)}" if size in fits.bytes_of else ""
        gpus = f"{layout.gpus} GPU{'s' * (layout.gpus > 1)}"
        said.append(f"{gpus}: {layout.batch} {'fits' + filled if size <= fits.largest else 'does not fit'}")
        too_large += [gpus] if size > fits.largest else []
    measured = "; ".join(said)
    if not too_large:
        return Finding("batches", "ok", measured, "of the recipe, on GPUs like this one")
    return Finding("batches", "warning", measured, f"the recipe's micro-batch is too large on {', '.join(too_large)}")


def largest_divisor(batch: int, most: int) -> int:
    """Return the largest divisor of a batch that is not above a number."""
    return next(size for size in range(max(1, most), 0, -1) if batch % size == 0)
