"""Paired measurements: what is compared runs in turns, and ratios are taken within a turn."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch

Times = dict[str, list[float]]


def seconds(act: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def run_module(*arguments: str) -> None:
    """Run one of our modules with its arguments; the benchmark ends with what it said if it fails."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")


def take_turns(candidates: Mapping[str, Callable[[], float]], turns: int) -> Times:
    """Let each candidate measure itself once a turn, every turn in the reverse order of the one before."""
    times: Times = {name: [] for name in candidates}
    for turn in range(turns):
        for name in list(candidates)[:: -1 if turn % 2 else 1]:
            times[name].append(candidates[name]())
    return times


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return one ratio a turn."""
    return [a / b for a, b in zip(over, under, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median, and the least and the greatest."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table, each row when it is there."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print(flush=True)


def machine() -> str:
    """Name the CPU, its cores, its instruction set and torch."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, {torch.backends.cpu.get_cpu_capability()}, "
        f"bf16 in hardware: {'yes' if has_bf16() else 'no'}, torch {torch.__version__}"
    )


def has_bf16() -> bool:
    """Tell whether the CPU multiplies bf16 matrices itself."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags
