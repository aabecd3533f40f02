"""A training run that is checked and resolved, and its training with processes of this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from uuid import uuid4

import torch

from shards.dataset.index import Index
from trainer.config.config import Config
from trainer.core.stopping import Outcome
from trainer.gan.assembly import refuse_fp16
from trainer.launch.local_processes import default_processes, run_processes
from trainer.runs.config_loading import check_identity, resolve_config, write_config
from trainer.runs.lease import HANDED_OVER, HERE, held
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class PreparedTraining:
    """All that a training needs, checked: whoever carries it out only reads it."""

    run: RunFolder
    config: Config
    """Resolved: as it will be written into the run folder."""
    dataset: Index
    processes: int
    """That train; of a job, when all nodes asked for are there."""


def prepare_training(run: RunFolder, asked: Config, processes: int | None = None) -> PreparedTraining:
    """Resolve and check a training. Nothing is written.

    Args:
        run: the run folder, which need not exist.
        asked: the settings, as their user has named them.
        processes: those of a job; None: the training is on this machine.

    Raises:
        Refused: the settings are impossible, do not fit the data, this machine or the existing run, or there are more
            processes than micro-batches.
    """
    config, dataset = resolve_config(run, asked)
    if processes is None:
        processes = config.processes or default_processes(config)
        if config.mixed_precision == "fp16" and not torch.cuda.is_available():
            refuse_fp16()
    config.check_world(processes)
    return PreparedTraining(run, config, dataset, processes)


def train_here(training: PreparedTraining) -> Outcome:
    """Train with processes of this machine.

    Raises:
        Refused: another process trains in the run folder, or another run has begun there since.
    """
    run, config = training.run, training.config
    total = config.images_to_see(training.dataset.splits["train"].samples)
    if config.epochs is None and total != config.total_images:
        print(f"total_images {config.total_images:,} is rounded up to whole steps: {total:,}", file=sys.stderr)
    owner = f"{HERE}, {uuid4().hex[:8]}"
    with held(run, owner, HANDED_OVER):
        check_identity(run, config)  # once more: before the folder was held, another run may have begun in it
        write_config(run, config)
        return run_processes(run, training.processes, owner)
