"""The exact reduction beside gloo's all_reduce of the same bytes: `python -m bench.reduction`."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import tyro
from torch import nn

from bench.measure import Times, machine, ratios, seconds, spread, table, take_turns
from trainer.distributed.flat_buffer import FlatLayout
from trainer.distributed.reduction import ExactReduction
from trainer.distributed.world import World

CASES = ((2, 2), (2, 6), (3, 8), (4, 8))
EXACT, GLOO = "exact", "gloo"


@dataclass(frozen=True)
class Bench:
    """Measure the reduction."""

    megabytes: int = 36
    turns: int = 15
    cases: tuple[tuple[int, int], ...] = CASES
    """Processes, and micro-batches."""


def exact(reduction: ExactReduction, share: range) -> float:
    """Return the seconds of one mean, from the moment when all processes have their gradients."""
    for j in share:
        with reduction.micro_batch(j):
            if j == share[-1]:  # the exchange begins where it ends
                dist.barrier()
                began = time.perf_counter()
    reduction.mean()
    return time.perf_counter() - began


def gloo(flat: torch.Tensor) -> float:
    """Return the seconds of one all_reduce and the division, from the moment when all processes are here."""
    dist.barrier()
    return seconds(lambda: (dist.all_reduce(flat), flat.div_(dist.get_world_size())))


def process(rank: int, size: int, micro_batches: int, args: Bench, folder: str) -> None:
    """Measure in one of the processes; the first writes down its times."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    network = nn.Linear(1000, args.megabytes * 250, bias=False)
    world = World(rank, size)
    reduction = ExactReduction(FlatLayout(network, ()), network, micro_batches, world)
    candidates: dict[str, Callable[[], float]] = {
        EXACT: partial(exact, reduction, world.share(micro_batches)),
        GLOO: partial(gloo, torch.ones(args.megabytes * 250_000)),
    }
    take_turns(candidates, 2)
    times = take_turns(candidates, args.turns)
    if world.main:
        (Path(folder) / "times.json").write_text(json.dumps(times))
    dist.destroy_process_group()


def measure(size: int, micro_batches: int, args: Bench) -> Times:
    """Return the times of both in one group of processes."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, (size, micro_batches, args, folder), nprocs=size)  # type: ignore[attr-defined,no-untyped-call]  # torch
        times: Times = json.loads((Path(folder) / "times.json").read_text())
    return times


def main(args: Bench) -> None:
    print(f"{machine()}; 1 thread a process\n")
    rows = []
    for size, micro_batches in args.cases:
        times = measure(size, micro_batches, args)
        shares = ", ".join(str(len(World(r, size).share(micro_batches))) for r in range(size))
        cells = [spread([s * 1e3 for s in times[name]], 1) for name in (EXACT, GLOO)]
        ratio = spread(ratios(times[EXACT], times[GLOO]))
        rows.append([f"{size} processes, M = {micro_batches} ({shares})", *cells, ratio])
    table([f"{args.megabytes} MB, {args.turns} turns", "exact, ms", "gloo all_reduce, ms", "exact ÷ gloo"], rows)


if __name__ == "__main__":
    main(tyro.cli(Bench))
