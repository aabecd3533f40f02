"""The trainer's commands."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from trainer.assembly import refuse_fp16
from trainer.checkpoint import Checkpoint, newest_whole
from trainer.cluster import Cluster
from trainer.config import Config
from trainer.dataset import open_data
from trainer.lease import Lease
from trainer.process import run_rank
from trainer.processes import default_processes, end_with_parent, run_processes
from trainer.rank_environment import is_rank, refuse_crowd
from trainer.resolve import defaults, settle, write_config
from trainer.run_folder import RunFolder
from trainer.settings import Refused
from trainer.state import fingerprint
from trainer.stopping import Outcome


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
    again = tyro.cli(Train, args=list(arguments), default=start, prog="python -m trainer train")
    return replace(again, config=settle(RunFolder(again.run), again.config))


def run_train(args: Train) -> Outcome:
    """Train: as one of a group if somebody has started one, else with processes of our own."""
    run = RunFolder(args.run)
    if not is_rank():
        refuse_crowd("trainer train")
    else:
        end_with_parent()
        cluster = Cluster()
        cluster.stop.install()
        outcome = run_rank(args.config, run, cluster)
        # All is closed and durable. What is left are the native threads of the process group, which now and then
        # abort the interpreter's shutdown ("terminate called without an active exception").
        logging.shutdown()
        os._exit(outcome)
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
    refuse_living(run)  # a run that trains already keeps its settings
    write_config(run, config)
    return run_processes(run, size)


def refuse_living(run: RunFolder) -> None:
    """Refuse a run that somebody trains.

    Raises:
        Refused: naming who.
    """
    Lease(run, Cluster().owner, 0, lambda _: None).release()


def whole_state(run: RunFolder) -> Checkpoint:
    """Return the newest whole checkpoint, naming on standard error those that are damaged.

    Raises:
        Refused: there is none.
    """
    found = newest_whole(
        run.checkpoints,
        lambda checkpoint, problem: print(f"passed over damaged {checkpoint.path}: {problem}", file=sys.stderr),
    )
    if found is None:
        raise Refused(f"{run.path} holds no whole checkpoint")
    return found


def run_fingerprint(args: Fingerprint) -> Outcome:
    """Print what a run's state is, to the bit."""
    tensors, values = whole_state(RunFolder(args.run)).read()
    print(f"images_seen {values['images_seen']}")
    print(fingerprint(tensors, values))
    return Outcome.FINISHED
