"""A device or a host that has too little memory: what was asked for, what there is, and what to change."""

from __future__ import annotations

import re

import psutil
import torch

from trainer.config.config import Config
from trainer.core.advice import command
from trainer.distributed.nccl_errors import Meaning, meaning_of
from trainer.runs.run_folder import RunFolder

# What torch's allocators say: c10/cuda/CUDACachingAllocator.cpp, c10/core/impl/alloc_cpu.cpp.
ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
CAPACITY = re.compile(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free")
HOST = re.compile("DefaultCPUAllocator: (can't allocate|not enough) memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory is used up."""
    # Pinned memory and libraries of NVIDIA's report it as CUDA's own error, in a plain RuntimeError.
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or bool(HOST.search(str(error)))
        or "CUDA error: out of memory" in str(error)
        or meaning_of(error) is Meaning.MEMORY
    )


def out_of_memory_message(error: BaseException, config: Config, run: RunFolder, where: str) -> str:
    """Say in one line what happened, and what to change.

    Args:
        error: for which `is_out_of_memory` is true.
        config: of the run.
        run: its folder.
        where: names the rank and its node.
    """
    text = str(error)
    asked = f"{found[1]} were asked for, " if (found := ASKED.search(text)) else ""
    if capacity := CAPACITY.search(text):
        memory = f"{capacity[2]} of the GPU's {capacity[1]} are free"
    else:
        host = psutil.virtual_memory()
        memory = f"{host.available / 2**30:.1f} GiB of the machine's {host.total / 2**30:.1f} GiB are free"
    return f"out of memory on {where}: {asked}{memory}. {what_to_change(config, run)}"


def what_to_change(config: Config, run: RunFolder) -> str:
    """Say which settings need less memory."""
    smaller = smaller_micro_batch(config.micro_batch_size)
    ways = [f"--micro-batch-size {smaller}"] if smaller else []
    ways += ["--mixed-precision bf16"] if config.mixed_precision == "no" and torch.cuda.is_available() else []
    narrower = "smaller networks (--network.g-channels, --network.d-channels)"
    if not ways:
        return f"Begin a new run with {narrower}"
    # Without a checkpoint there is nothing to go on from.
    if run.newest_checkpoint() is None:
        return f"Begin a new run with {' or '.join(ways)}, or with {narrower}"
    again = command("launcher", "resume", run.path, "--as", f"{run.path}-smaller", *ways[0].split())
    also = f" ({ways[1]} needs less, too)" if ways[1:] else ""
    return f"Go on as a new run with smaller parts: {again}{also}; or begin one with {narrower}"


def smaller_micro_batch(size: int) -> int:
    """Return the largest size below that divides it, so that it divides the batch as well; 0: there is none."""
    return next((size // factor for factor in range(2, size + 1) if size % factor == 0), 0)
