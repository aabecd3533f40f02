"""The trainer's commands."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from command_line.arguments import parse
from command_line.help_page import HelpPage
from trainer.config.batch_scaling import ScaleRule
from trainer.config.config import Config
from trainer.config.recipes import scale
from trainer.core.stopping import Outcome
from trainer.distributed.rank_environment import is_rank, refuse_crowd
from trainer.gan.fingerprint import fingerprint
from trainer.launch.job_context import OWNER, JobContext
from trainer.launch.local_processes import end_with_watching_parent, train_here
from trainer.launch.prepared_training import prepare_training
from trainer.runs.checkpoint import newest_or_refuse
from trainer.runs.config_defaults import load_defaults, resolve_length
from trainer.runs.config_resolution import resolve_config
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Train:
    """Train a run, or go on with it: the same command on the same run folder resumes."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "dcgan-64 --run runs/one --data my-shards": "train, or go on with it",
            "--run runs/one --total-images 2000000": "go on, for longer",
        },
        everyday={
            "what": ("--run", "--data", "--init-from"),
            "how (defaults are those of dcgan-64)": (
                *("--total-images", "--epochs", "--batch-size", "--seed", "--optimizer.g-lr", "--optimizer.d-lr"),
                *("--augment.kind", "--processes"),
            ),
            "what is seen and kept": ("--sample-every-images", "--checkpoint-every-images", "--tracking.project"),
        },
    )

    run: Path
    """The run folder."""
    recipe: tyro.conf.Positional[str | None] = None
    """Its name, such as dcgan-64, the default (python -m launcher recipes lists all); an existing run keeps its own."""
    scale_rule: ScaleRule = "none"
    """paper: a batch other than the recipe's sets rates, penalties and moving average by the rule of its paper. What
    you set otherwise than the recipe stays."""
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


@dataclass(frozen=True)
class Fingerprint:
    """Print images_seen, and as the last line one SHA-256 over all state of the newest checkpoint."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"runs/NAME": "equal for runs with the same bits"})

    run: tyro.conf.Positional[Path]
    """The run folder."""


def read_train(parsed: Train, arguments: Sequence[str]) -> Train:
    """Parse the command line again, over the settings that its recipe or its run folder begins with.

    Raises:
        Refused: there is no such recipe, a file holds bad settings, or the recipe's paper has no rule.
    """
    start = replace(parsed, config=load_defaults(parsed.recipe, RunFolder(parsed.run)))
    again: Train = parse(Train, arguments, "python -m trainer train", start)
    return replace(again, config=scale(resolve_length(again.config, arguments), again.scale_rule))


def run_train(args: Train, context: JobContext) -> Outcome:
    """Train: as one rank of a group if somebody has started one, else with processes of our own.

    Raises:
        Refused: the settings are impossible, or change the identity of an existing run.
    """
    run = RunFolder(args.run)
    if is_rank():
        from trainer.training.worker import run_rank  # a parent does not wait for what trains

        end_with_watching_parent()
        # A parent of ours has resolved the settings and stored them; torchrun and accelerate start ranks with what the
        # user has named.
        config = args.config if OWNER in os.environ else resolve_config(run, args.config).config
        outcome = run_rank(config, run, context)
        # All is closed and durable. What is left are the native threads of the process group, which now and then
        # abort the interpreter's shutdown ("terminate called without an active exception").
        logging.shutdown()
        os._exit(outcome)
    refuse_crowd("trainer train")
    return train_here(prepare_training(run, args.config))


def run_fingerprint(args: Fingerprint) -> Outcome:
    """Print what a run's state is, to the bit."""
    tensors, values = newest_or_refuse(RunFolder(args.run)).read()
    print(f"images_seen {values['images_seen']}")
    print(fingerprint(tensors, values))
    return Outcome.FINISHED
