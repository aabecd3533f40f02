"""A training that is checked and resolved: whoever carries it out, here or in a job, only reads it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from shards.dataset.index import Index
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.gan.assembly import refuse_on_cpu
from trainer.runs.config_resolution import resolve_config
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class PreparedTraining:
    """All that a training needs."""

    run: RunFolder
    config: Config
    """Resolved: as it will be written into the run folder."""
    dataset: Index
    processes: int
    """That train; of a job, when all nodes asked for are there."""


def default_processes(config: Config) -> int:
    """Return one process a GPU, or one a core, and at most one a micro-batch."""
    devices = torch.cuda.device_count() or len(os.sched_getaffinity(0))
    return max(1, min(devices, config.micro_batches))


def refuse_shared_gpus(processes: int) -> None:
    """Refuse more processes on this machine than it has GPUs: NCCL joins one a GPU.

    Raises:
        Refused: naming both numbers.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise Refused(
            f"--processes {processes}: this machine has {gpus} GPU{'s' * (gpus > 1)} to see, and training takes one "
            f"process a GPU: use at most --processes {gpus}"
        )


def prepare_training(run: RunFolder, asked: Config, processes: int | None = None) -> PreparedTraining:
    """Resolve and check a training. Nothing is written.

    Args:
        run: the run folder, which need not exist.
        asked: the settings, as their user has named them.
        processes: those of a job; None: the training is on this machine.

    Raises:
        Refused: the settings are impossible, do not fit the data, this machine or the existing run, or there are more
            processes than micro-batches or GPUs.
    """
    config, dataset = resolve_config(run, asked)
    if processes is None:
        processes = config.processes or default_processes(config)
        refuse_shared_gpus(processes)
        if not torch.cuda.is_available():
            refuse_on_cpu(config)
    config.check_world(processes)
    return PreparedTraining(run, config, dataset, processes)
