"""How busy the GPUs of a node are, by their vendor's library: nvidia-ml-py, or amdsmi. Neither is required."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch

log = logging.getLogger(__name__)

MIB = 2**20

Queries = Mapping[str, Callable[[], Any]]
"""What can be asked of one GPU, by the name of the column."""


def visible_gpus() -> list[Queries]:
    """Return the GPUs that the vendor's library shows; it starts nothing on them and takes none of their memory."""
    for found in (nvidia_gpus, amd_gpus):
        with suppress(Exception):  # not installed, or no driver; the errors are classes of the libraries
            return found()
    if torch.cuda.is_available():
        log.warning("no figures of this node's GPUs: nvidia-ml-py (for AMD's amdsmi) is missing or has no answer")
    return []


def read_gpus(gpus: Sequence[Queries]) -> dict[str, float]:
    """Ask all GPUs everything; what one does not have, or does not tell just now, is left out."""
    figures: dict[str, float] = {}
    for number, queries in enumerate(gpus):
        for name, query in queries.items():
            with suppress(Exception):  # as above: MIG slices have no utilisation, some cards no power
                figures[f"gpu/{number}/{name}"] = round(float(query()), 1)
    return figures


def nvidia_gpus() -> list[Queries]:
    """Return NVIDIA's; any exception: there is no library, or no driver."""
    nvml: Any = importlib.import_module("pynvml")
    nvml.nvmlInit()
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    return [nvidia_queries(nvml, handle) for handle in handles]


def nvidia_queries(nvml: Any, handle: Any) -> Queries:
    """Return what one of NVIDIA's is asked."""
    return {
        "percent": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "memory_used_mb": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used // MIB,
        "memory_total_mb": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
        "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,  # milliwatts
        "temperature_c": partial(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
    }


def amd_gpus() -> list[Queries]:
    """Return AMD's; any exception: there is no library, or no driver."""
    smi: Any = importlib.import_module("amdsmi")
    smi.amdsmi_init()
    return [amd_queries(smi, handle) for handle in smi.amdsmi_get_processor_handles()]


def amd_queries(smi: Any, handle: Any) -> Queries:
    """Return what one of AMD's is asked. What it lacks is the word N/A, which is no number and is left out."""

    def power() -> float:
        told = smi.amdsmi_get_power_info(handle)
        # The MI300 tells the current power, older ones an average only.
        return float(next(told[key] for key in ("current_socket_power", "average_socket_power") if told[key] != "N/A"))

    hottest, current = smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureMetric.CURRENT
    return {
        "percent": lambda: smi.amdsmi_get_gpu_activity(handle)["gfx_activity"],
        "memory_used_mb": lambda: smi.amdsmi_get_gpu_vram_usage(handle)["vram_used"],  # MiB
        "memory_total_mb": lambda: smi.amdsmi_get_gpu_vram_usage(handle)["vram_total"],
        "power_w": power,
        "temperature_c": partial(smi.amdsmi_get_temp_metric, handle, hottest, current),
    }
