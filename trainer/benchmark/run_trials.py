"""Run the trials of a benchmark in parallel, one per core."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch

from command_line.parent import end_with_parent
from trainer.benchmark import results
from trainer.benchmark.recipes import PROTOCOLS, RECIPES
from trainer.benchmark.results import Result, Trial
from trainer.benchmark.training import generate_samples, train_benchmark
from trainer.config.config import Config
from trainer.core.fields import identity_hash
from trainer.core.migration import identity_hashes
from trainer.core.stopping import Outcome
from trainer.gan.fingerprint import fingerprint


def trial_config(trial: Trial) -> Config:
    """Return the settings of a trial."""
    return RECIPES[trial.protocol][trial.recipe].settings(trial.recipe, trial.seed, trial.steps)


def kept_result(trial: Trial, out: Path) -> Result | None:
    """Return the stored result of a trial; None: it was not run yet.

    Raises:
        Refused: the stored result is of other settings.
    """
    return results.read_result(trial, out, identity_hashes(trial_config(trial)))


def run_trials(trials: Sequence[Trial], out: Path, processes: int) -> Iterator[Trial]:
    """Run trials, so many at a time, and yield each one when its result is stored."""
    if processes == 1:  # in this process, so that Ctrl-C and a debugger work as usual
        yield from (run_trial(trial, out) for trial in trials)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), set_up_worker) as pool:  # fork breaks threads
        yield from (
            future.result() for future in as_completed([pool.submit(run_trial, trial, out) for trial in trials])
        )


def set_up_worker() -> None:
    """Let Ctrl-C, or the end of its parent, end this process at once: its trial is run again."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent(Outcome.FAILED)


def run_trial(trial: Trial, out: Path) -> Trial:
    """Train, generate samples, count their modes, and store the result."""
    torch.set_num_threads(1)  # the number of threads changes the bits
    start, protocol, config = time.process_time(), PROTOCOLS[trial.protocol], trial_config(trial)
    state = train_benchmark(protocol, config, trial.steps)
    samples = generate_samples(config, state, protocol.samples)
    weights, figures = fingerprint(state.tensors(), state.scalars()), protocol.count_modes(samples)
    result = Result(identity_hash(config), trial.steps, weights, figures, round(time.process_time() - start, 1))
    # Only what the picture shows: 26,000 stacked digits would be 80 MB a trial.
    results.write_result(trial, out, result, samples[: protocol.shown])
    return trial
