"""A trace of some steps of one rank, by torch.profiler, for Perfetto or chrome://tracing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from trainer.config.config import Config
from trainer.distributed.world import World
from trainer.runs.run_folder import RunFolder

log = logging.getLogger(__name__)

# The first steps compile, allocate and choose kernels; then the profiler itself starts up.
SKIPPED_STEPS, WARM_UP_STEPS = 8, 2


class StepTrace:
    """Records steps of this attempt, and writes them into a file.

    Args:
        path: of the file, a .json.gz.
        steps: so many; 0: none, and nothing is done.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps, self.done = path, steps, 0
        self.profiler: profile | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Record the step inside if it is among those that are wanted."""
        if self.done >= (SKIPPED_STEPS + WARM_UP_STEPS + self.steps if self.steps else 0):
            yield
            return
        if self.done == SKIPPED_STEPS:
            self.start()
        yield
        self.done += 1
        if self.profiler:
            self.profiler.step()
            if self.done == SKIPPED_STEPS + WARM_UP_STEPS + self.steps:
                self.stop()

    def start(self) -> None:
        """Begin to warm up."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        plan = schedule(wait=0, warmup=WARM_UP_STEPS, active=self.steps, repeat=1)
        self.profiler = profile(activities=activities, schedule=plan, on_trace_ready=self.write)
        self.profiler.start()

    def stop(self) -> None:
        """End, and write what was recorded; of an attempt that ended early, the steps so far."""
        profiler, self.profiler = self.profiler, None
        if profiler:
            profiler.stop()

    def write(self, recorded: profile) -> None:
        """Write the trace; a disk that is full does not stop training."""
        try:
            self.path.parent.mkdir(exist_ok=True)
            part = self.path.with_name(f"part-{self.path.name}")  # torch compresses what ends in .gz
            recorded.export_chrome_trace(str(part))
            os.replace(part, self.path)
            # A warning, as other ranks than 0 show nothing less.
            log.warning("a trace of %d steps is in %s: open it in https://ui.perfetto.dev", self.steps, self.path)
        except (OSError, RuntimeError) as error:
            log.warning("the trace was not written: %s", error)


def step_trace(config: Config, run: RunFolder, world: World) -> StepTrace:
    """Return what traces this rank, if it is the one that the settings name."""
    if config.trace_steps and config.trace_rank >= world.size and world.main:
        log.warning("nothing is traced: there is no rank %d among %d processes", config.trace_rank, world.size)
    mine = world.rank == config.trace_rank
    return StepTrace(run.trace(world.rank), config.trace_steps if mine else 0)
