"""The trainings of a benchmark, one a core."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch

from trainer.benchmark import results
from trainer.benchmark.registry import PROTOCOLS, RECIPES
from trainer.benchmark.results import Result, Trial
from trainer.benchmark.training import paint, train
from trainer.config.config import Config
from trainer.core.fields import identity_hash
from trainer.core.migration import identities
from trainer.core.stopping import Outcome
from trainer.gan.fingerprint import fingerprint


def settings(job: Trial) -> Config:
    """Return the settings of a training."""
    return RECIPES[job.protocol][job.recipe].settings(job.recipe, job.seed, job.steps)


def kept(job: Trial, out: Path) -> Result | None:
    """Return the result of a training if it was done.

    Raises:
        Refused: what is kept is of other settings.
    """
    return results.read(job, out, identities(settings(job)))


def train_all(jobs: Sequence[Trial], out: Path, processes: int) -> Iterator[Trial]:
    """Train, so many at a time, and yield each training once its result is kept."""
    if processes == 1:
        yield from (train_one(job, out) for job in jobs)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), end_with_parent) as pool:
        yield from (future.result() for future in as_completed([pool.submit(train_one, job, out) for job in jobs]))


def end_with_parent() -> None:
    """End this process at once by Ctrl-C, or when its parent is gone: what it is at is done again."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(Outcome.FAILED)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def train_one(job: Trial, out: Path) -> Trial:
    """Train, judge, and keep the result."""
    torch.set_num_threads(1)  # their number changes the bits
    start, protocol, config = time.process_time(), PROTOCOLS[job.protocol], settings(job)
    state = train(protocol, config, job.steps)
    samples = paint(config, state, protocol.samples)
    weights, figures = fingerprint(state.tensors(), state.scalars()), protocol.judge(samples)
    result = Result(identity_hash(config), job.steps, weights, figures, round(time.process_time() - start, 1))
    results.write(job, out, result, samples[: protocol.shown])
    return job
