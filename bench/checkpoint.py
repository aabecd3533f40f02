"""How long a checkpoint stops training, beside other ways to save: `python -m bench.checkpoint`."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import tyro
from torch import Tensor
from torch.distributed import HashStore  # type: ignore[attr-defined]  # re-exported without a word
from torch.distributed.checkpoint.state_dict_saver import async_save

from bench.measure import machine, ratios, seconds, spread, table, take_turns
from shards.atomic_files import fsync
from trainer.config.groups import CheckpointSettings
from trainer.config.recipes import recipe_config
from trainer.gan.assembly import create_state
from trainer.gan.state import TrainState
from trainer.runs.checkpoint_writer import Checkpoints, Saved

OURS, COPY, TORCH, DCP, WRITE = "ours", "copy", "torch", "dcp", "write"
NAMES = {
    OURS: "`Checkpoints.save`: training stands still",
    COPY: "`_foreach_copy_` into reused buffers: the bare snapshot",
    TORCH: "`torch.save` + fsync: training stands still",
    DCP: "`torch.distributed.checkpoint.async_save`: training stands still",
}


@dataclass(frozen=True)
class Bench:
    """Measure checkpoints."""

    recipe: str = "dcgan-64"
    turns: int = 7
    device: str = "cpu"
    """cuda: of the state; what is compared copies it into memory of the host."""


class Candidates:
    """Ways to save one state; each call returns the seconds that training would stand still."""

    def __init__(self, state: TrainState, folder: Path) -> None:
        self.state, self.folder = state, folder
        self.buffers = [
            torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda) for tensor in state.tensors().values()
        ]
        self.checkpoints = Checkpoints(folder / "ours", CheckpointSettings(keep_last=1), lambda: None)
        self.writes: list[float] = []

    def ours(self) -> float:
        """Save as the trainer does; the background write is waited for outside the time."""
        self.state.images_seen += 1
        stall = seconds(lambda: self.checkpoints.save(self.state.tensors(), self.state.scalars()))
        saved = self.checkpoints.result(wait=True)
        assert isinstance(saved, Saved), saved
        self.writes.append(saved.write_s)
        return stall

    def copy(self) -> float:
        """Copy alone."""
        tensors = list(self.state.tensors().values())

        def copy() -> None:
            torch._foreach_copy_(self.buffers, tensors, non_blocking=True)
            if any(tensor.is_cuda for tensor in tensors):
                torch.cuda.synchronize()

        return seconds(copy)

    def torch_save(self) -> float:
        """Save in the foreground."""

        def save(tensors: dict[str, Tensor], path: Path) -> None:
            torch.save(tensors, path)
            fsync(path)

        return seconds(partial(save, self.state.tensors(), self.folder / "state.pt"))

    def dcp_async(self) -> float:
        """Let torch copy in the foreground and write in the background."""
        shutil.rmtree(self.folder / "dcp", ignore_errors=True)
        futures = []
        path = str(self.folder / "dcp")
        stall = seconds(lambda: futures.append(async_save(self.state.tensors(), checkpoint_id=path)))
        futures[0].result()  # type: ignore[union-attr]  # a future, as no stager was asked for
        return stall


def measure(args: Bench, folder: Path) -> None:
    """Take turns and print the table."""
    state = create_state(recipe_config(args.recipe), "bench", torch.device(args.device))
    ways = Candidates(state, folder)
    candidates: dict[str, Callable[[], float]] = {
        OURS: ways.ours,
        COPY: ways.copy,
        TORCH: ways.torch_save,
        DCP: ways.dcp_async,
    }
    take_turns(candidates, 1)
    ways.writes.clear()
    times = take_turns(candidates, args.turns)
    ways.checkpoints.close()
    size = sum(tensor.nbytes for tensor in state.tensors().values())
    rows = [
        [what, spread([s * 1e3 for s in times[n]], 1), spread(ratios(times[n], times[COPY]))]
        for n, what in NAMES.items()
    ]
    written = spread([s * 1e3 for s in ways.writes], 0)
    rows.append(["our write in the background: fsync, SHA-256, read back twice", written, ""])
    table([f"{args.recipe}, {size / 1e6:.0f} MB, {args.turns} turns", "ms", "÷ bare snapshot"], rows)


def main(args: Bench) -> None:
    warnings.filterwarnings("ignore")  # of torch.distributed.checkpoint
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print(f"{machine()}; 1 thread, {args.device}\n")
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            measure(args, Path(folder))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(tyro.cli(Bench))
