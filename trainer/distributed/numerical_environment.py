"""The numerical environment: what, besides the settings and the data, the bits of a run depend on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy
import torch

from command_line.plugins import plugins_in_use
from trainer.distributed.rank_environment import bits_variables

AMD_WITH_BF16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")

OPERATIONS = 3
"""Raised when a version computes a step of some recipe by other operations, and so to other bits (CHANGELOG.md)."""


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
    """Return the mixed precision that the hardware has: bf16 or no; never fp16, whose range is small."""
    if torch.cuda.is_available():
        return "bf16" if all(gpu_has_bf16(index) for index in range(torch.cuda.device_count())) else "no"
    return "bf16" if cpu_has_bf16() else "no"


def gpu_has_bf16(index: int) -> bool:
    """Tell whether a GPU multiplies bf16 matrices in hardware.

    NVIDIA's do from compute capability 8.0 on (A100); V100 (7.0) and T4 (7.5) compute in float32 and round. Of AMD's,
    torch says so of all, but only those with such instructions do: CDNA (MI100 and later), RDNA 3 and 4.
    """
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(index).gcnArchName).startswith(AMD_WITH_BF16)
    # Not torch.cuda.is_bf16_supported, which asks the current device, and by default counts emulation.
    return torch.cuda.get_device_capability(index) >= (8, 0)


def state_float32_kernels() -> None:
    """Let float32 mean float32 on GPUs: no TF32, which keeps 10 of 23 bits, and which torch takes for convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def choose_kernels(deterministic: bool) -> None:
    """Choose the kernels of training; before anything is computed."""
    if deterministic:
        # Read by cuBLAS when it starts; without it, its workspaces make results depend on the stream.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    state_float32_kernels()
    # Only a warning: some operations have no deterministic kernel on a GPU, and training goes on with another one.
    # Not by use_deterministic_algorithms, which loads the compiler to tell it as well: seconds of each start.
    torch.set_deterministic_debug_mode("warn" if deterministic else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
    torch.backends.cudnn.deterministic = deterministic
    # benchmark chooses kernels by timing, so two runs may choose differently.
    torch.backends.cudnn.benchmark = not deterministic


def numerical_environment(device: torch.device) -> dict[str, str | int | bool]:
    """Return the numerical environment of this process."""
    cuda = device.type == "cuda"
    return {
        "operations": OPERATIONS,
        "device": torch.cuda.get_device_name(device) if cuda else cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),  # on a CPU their number changes the bits of a convolution's gradients
        "torch": torch.__version__,
        "cuda": (torch.version.cuda or "") if cuda else "",
        "cudnn": (torch.backends.cudnn.version() or 0) if cuda else 0,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda else "",
        "driver": driver_version() if cuda else "",
        "tf32": cuda and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
        "numpy": numpy.__version__,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "variables": bits_variables(),
        "plugins": plugins_in_use(),
    }


def driver_version(sysfs: Path = Path("/sys")) -> str:
    """Return the version of the GPU's driver; empty: it does not tell."""
    for module in ("nvidia", "amdgpu"):
        with suppress(OSError):
            return (sysfs / "module" / module / "version").read_text().strip()
    return ""


def environment_differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Say in words how two environments differ, in what both of them name: an earlier version has noted less."""
    before = {"operations": 1, **before}
    return [f"{key} was {before[key]!r}, is {now[key]!r}" for key in now if key in before and before[key] != now[key]]
