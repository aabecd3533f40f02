"""The trainer's commands."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import torch
import tyro

from command_line.arguments import parse
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.core.stopping import Outcome
from trainer.distributed.rank_environment import is_rank, refuse_crowd
from trainer.gan.assembly import refuse_fp16
from trainer.gan.fingerprint import fingerprint
from trainer.launch.job_context import Cluster
from trainer.launch.local_processes import default_processes, end_with_parent, run_processes
from trainer.runs.checkpoint import newest_or_refuse
from trainer.runs.config_loading import check_identity, defaults, settle, settle_length, write_config
from trainer.runs.lease import HANDED_OVER, HERE, held
from trainer.runs.run_folder import RunFolder
from trainer.training.worker import run_rank


@dataclass(frozen=True)
class Train:
    """Train a run, or go on with it: the same command on the same run folder resumes."""

    run: Path
    """The run folder."""
    recipe: tyro.conf.Positional[str | None] = None
    """Its name, such as dcgan-64, the default (python -m launcher recipes lists all); an existing run keeps its own."""
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


@dataclass(frozen=True)
class Fingerprint:
    """Print images_seen, and as the last line one SHA-256 over all state of the newest checkpoint."""

    run: tyro.conf.Positional[Path]
    """The run folder."""


def read_train(parsed: Train, arguments: Sequence[str]) -> Train:
    """Parse the command line again, over the settings that its recipe or its run folder begins with.

    Raises:
        Refused: the settings are impossible, or change the identity of an existing run.
    """
    start = replace(parsed, config=defaults(parsed.recipe, RunFolder(parsed.run)))
    again: Train = parse(Train, arguments, "python -m trainer train", start)
    return replace(again, config=settle(RunFolder(again.run), settle_length(again.config, arguments)))


def run_train(args: Train, cluster: Cluster) -> Outcome:
    """Train: as one of a group if somebody has started one, else with processes of our own."""
    run = RunFolder(args.run)
    if is_rank():
        end_with_parent()
        outcome = run_rank(args.config, run, cluster)
        # All is closed and durable. What is left are the native threads of the process group, which now and then
        # abort the interpreter's shutdown ("terminate called without an active exception").
        logging.shutdown()
        os._exit(outcome)
    refuse_crowd("trainer train")
    return train_here(args.config, run)


def train_here(config: Config, run: RunFolder) -> Outcome:
    """Train with processes on this machine.

    Raises:
        Refused: the settings do not fit the data, or there are too many processes.
    """
    samples = open_data(config).splits["train"].samples
    size = config.processes or default_processes(config)
    config.check_world(size)
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        refuse_fp16()
    total = config.images_to_see(samples)
    if config.epochs is None and total != config.total_images:
        print(f"total_images {config.total_images:,} is rounded up to whole steps: {total:,}", file=sys.stderr)
    owner = f"{HERE}, {uuid4().hex[:8]}"
    with held(run, owner, HANDED_OVER):
        check_identity(run, config)  # once more: another run may have begun here since
        write_config(run, config)
        return run_processes(run, size, owner)


def run_fingerprint(args: Fingerprint) -> Outcome:
    """Print what a run's state is, to the bit."""
    tensors, values = newest_or_refuse(RunFolder(args.run)).read()
    print(f"images_seen {values['images_seen']}")
    print(fingerprint(tensors, values))
    return Outcome.FINISHED
