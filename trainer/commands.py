"""The trainer's commands."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import torch
import tyro

from command_line.arguments import parse
from trainer.assembly import refuse_fp16
from trainer.checkpoint import Checkpoint, newest_whole
from trainer.cluster import HERE, Cluster
from trainer.config import Config
from trainer.dataset import open_data
from trainer.lease import HANDED_OVER, Lease
from trainer.process import run_rank
from trainer.processes import default_processes, end_with_parent, run_processes
from trainer.rank_environment import is_rank, refuse_crowd
from trainer.resolve import check_identity, defaults, settle, settle_length, write_config
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


@contextmanager
def held(run: RunFolder, owner: str, attempt: int = 0) -> Iterator[None]:
    """Let nobody else write into a run folder meanwhile.

    Raises:
        Refused: somebody trains there, or the folder cannot be written.
    """
    lease = Lease(run, owner, attempt, lambda *_: None)
    try:
        yield
    finally:
        lease.release()


def refuse_living(run: RunFolder) -> None:
    """Refuse a run that somebody trains.

    Raises:
        Refused: naming who.
    """
    with held(run, HERE):
        pass


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
