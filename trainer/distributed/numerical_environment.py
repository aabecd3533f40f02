"""The numerical environment: what, besides the settings and the data, the bits of a run depend on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Literal

import numpy
import torch

from trainer.distributed.rank_environment import bits_variables


def cpu_model() -> str:
    """Return the processor's name."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cpu_has_bf16() -> bool:
    """Tell whether the processor multiplies bf16 matrices in hardware (AMX or AVX-512 BF16)."""
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next(line for line in lines if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def best_precision() -> Literal["bf16", "no"]:
    """Return the mixed precision that the hardware has: bf16, or no."""
    if torch.cuda.is_available():
        # Emulated bf16 rounds like the real one, without its speed.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if cpu_has_bf16() else "no"


def numerical_environment(device: torch.device) -> dict[str, str | int | bool]:
    """Return the numerical environment of this process."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),  # on a CPU their number changes the bits of a convolution's gradients
        "torch": torch.__version__,
        "cuda": (torch.version.cuda or "") if cuda else "",
        "cudnn": (torch.backends.cudnn.version() or 0) if cuda else 0,
        "numpy": numpy.__version__,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "variables": bits_variables(),
    }


def environment_differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Say in words how two environments differ."""
    return [f"{key} was {before.get(key)!r}, is {now[key]!r}" for key in now if before.get(key) != now[key]]
