"""Measurements of the generator: in line, or beside training, by a process of its own on a snapshot of the weights.

What is measured is the same either way, on whatever device training runs: only the time differs that training waits.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save
from torch import Tensor

from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.distributed.rank_environment import own_environment
from trainer.gan.flops import generator_flops
from trainer.runs.checkpoint_writer import Snapshot
from trainer.runs.run_folder import RunFolder
from trainer.training.sample_grids import Request, SampleGrids, Subject

log = logging.getLogger(__name__)

Figures = dict[str, float]
PROGRAM = "trainer.training.measuring_process"
FLOPS_ON_A_CORE = 5e8  # a picture: a grid takes some ten seconds of one core then
END_S = 10.0  # an orderly end waits so long for the process


class Measurements(Protocol):
    """Carries out requests, one after the other."""

    def ask(self, request: Request, weights: Mapping[str, Tensor]) -> Future[Figures]:
        """Begin a request with the generator's weights, which may change on return; OSError in place of figures."""

    def close(self) -> None:
        """End; what has not been answered is lost."""


class InLine:
    """Training waits.

    Args:
        grids: measure.
    """

    def __init__(self, grids: SampleGrids) -> None:
        self.grids = grids

    def ask(self, request: Request, weights: Mapping[str, Tensor]) -> Future[Figures]:
        """Carry out a request."""
        future = Future[Figures]()
        future.set_result(self.grids(request, weights))
        return future

    def close(self) -> None:
        """There is nothing to end."""


class Beside:
    """A process of its own measures: it shares no lock of Python's with the thread that trains.

    Args:
        run: the run folder, whose settings the process reads.
        device: where it generates.
    """

    def __init__(self, run: RunFolder, device: torch.device) -> None:
        self.run = run
        command = [sys.executable, "-m", PROGRAM, str(run.path.resolve()), "--device", str(device)]
        with run.measuring_log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=own_environment(os.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=Path(__file__).parents[2],  # where `-m trainer` is found, wherever the user stands
                start_new_session=True,
            )
        assert self.process.stdin
        assert self.process.stdout
        self.requests, self.answers = self.process.stdin, self.process.stdout
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="measurements")
        self.snapshots: dict[Subject, Snapshot] = {}
        self.last: dict[Subject, Future[Figures]] = {}

    def ask(self, request: Request, weights: Mapping[str, Tensor]) -> Future[Figures]:
        """Copy the weights, and have the request carried out in the background."""
        if request.subject in self.last:
            self.last[request.subject].exception()  # waits: the memory of its snapshot is reused
        snapshot = self.snapshots.setdefault(request.subject, Snapshot())
        if weights:  # an alarm has none
            snapshot.take(weights)
        self.last[request.subject] = self.executor.submit(self.exchange, request, snapshot)
        return self.last[request.subject]

    def exchange(self, request: Request, snapshot: Snapshot) -> Figures:
        """Send a request, and wait for its answer."""
        weights = save({name: tensor.contiguous() for name, tensor in snapshot.arrived().items()})
        try:
            self.requests.write(json.dumps({**asdict(request), "bytes": len(weights)}).encode() + b"\n" + weights)
            self.requests.flush()
            answer = self.answers.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            code = self.process.wait()
            raise OSError(f"the process that measures the generator has ended ({code}): see {self.run.measuring_log}")
        figures: Figures = json.loads(answer)
        return figures

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.executor.shutdown(cancel_futures=True)
        self.process.wait(END_S)
        self.answers.close()
        try:
            self.requests.close()
        except BrokenPipeError:
            log.debug("the process that measures was sent a request when it ended")


def measures_beside(config: Config, training: torch.device) -> bool:
    """Tell whether training goes on during a measurement; all ranks find the same."""
    return config.measure_on != "in-line" and (config.measure_on != "auto" or training.type == "cuda")


def measurements_of(
    config: Config, run: RunFolder, training: torch.device, make_grids: Callable[[], SampleGrids]
) -> Measurements:
    """Return what measures.

    Args:
        config, run: of the run.
        training: rank 0's device.
        make_grids: makes what measures in line.

    Raises:
        Refused: the settings name a GPU that is not there.
    """
    if not measures_beside(config, training):
        return InLine(make_grids())
    return Beside(run, measuring_device(config, training))


def measuring_device(config: Config, training: torch.device) -> torch.device:
    """Return where the process generates.

    Raises:
        Refused: the settings name a GPU that is not there.
    """
    if config.measure_on == "auto":
        return torch.device("cpu") if generator_flops(config) <= FLOPS_ON_A_CORE else training
    device = torch.device(config.measure_on)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise Refused(f"measure_on {device}: rank 0 sees {there} GPUs; name one of them, or --measure-on cpu")
    return device
