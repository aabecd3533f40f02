"""`launcher submit`: check everything, say what will happen, and have it trained. `launcher resume` is the same on an
old run.

The way of a run: its command line is read here; `prepare_run` checks it and resolves its settings, once; `carry_out`
shows what comes of that, and has it queued (`submit_to_slurm`) or trained on this machine (`train_here`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from command_line.arguments import flag_given, parse
from command_line.help_page import HelpPage
from launcher.cli.training_plan import carry_out
from launcher.jobs.fresh_folder import open_run_folder
from launcher.jobs.preparation import TrainingRequest, prepare_run
from launcher.jobs.resource_request import ResourceRequest
from trainer.config.batch_scaling import ScaleRule
from trainer.config.config import Config
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.runs.config_defaults import load_defaults, resolve_length
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Submit:
    """Train: on Slurm where there is one, else here with processes. On an existing --run it resumes."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "": "a first try",
            "dcgan-64 --data my-shards": "on your shards",
            "stylegan2-256 --data s3://bucket/shards --nodes 2-4": "on Slurm",
        },
        everyday={
            "what (defaults are those of dcgan-64)": ("--data", "--run", "--total-images", "--batch-size"),
            "where": ("--nodes", "--time", "--partition", "--processes", "--dry-run"),
            "what is seen and kept": ("--checkpoint-every-images", "--metrics.every-images", "--tracking.project"),
        },
    )

    recipe: tyro.conf.Positional[str | None] = None
    """Its name, such as dcgan-64, the default (python -m launcher recipes lists all); an existing run keeps its own."""
    run: Path | None = None
    """The run folder; default: runs/RECIPE-TIME."""
    keep_batch: bool = False
    """Refuse, rather than append micro-batches, when there are more processes than micro-batches."""
    scale_rule: ScaleRule = "none"
    """paper: a batch other than the recipe's sets rates, penalties and moving average by the rule of its paper; none:
    the rule is only told. What you set otherwise than the recipe stays."""
    dry_run: bool = False
    """Check everything, show the plan and the batch script, and do nothing."""
    resources: Annotated[ResourceRequest, tyro.conf.arg(name="")] = ResourceRequest()
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its newest whole checkpoint. Operational settings may change; identity settings only in a
    run of their own, with --as."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME": "go on where it was saved",
            "runs/NAME --nodes 4": "on 4 nodes",
            "runs/NAME --as runs/NEW --optimizer.g-lr 5e-5": "as a new run",
        },
        everyday={
            "what": ("--as", "--total-images", "--dry-run"),
            "where": ("--nodes", "--time", "--partition", "--processes"),
            "what is seen and kept": ("--checkpoint-every-images", "--metrics.every-images"),
        },
        kept=("--total-images", "--metrics.every-images"),
    )

    run: tyro.conf.Positional[Path]
    """The run folder."""
    new_run: Annotated[Path | None, tyro.conf.arg(name="as")] = None
    """Go on as a new run in this folder, from the whole state of the other: any setting but the networks may change."""
    dry_run: bool = False
    """Check everything, show the plan and the batch script, and do nothing."""
    resources: Annotated[ResourceRequest, tyro.conf.arg(name="")] = ResourceRequest()
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


def run_submit(parsed: Submit, arguments: Sequence[str]) -> int:
    """Carry out `submit`.

    Raises:
        Refused: something is wrong; nothing was started.
    """
    # The command line is read twice: the first time tells which recipe or run the defaults are of.
    defaults = replace(parsed, config=load_defaults(parsed.recipe, RunFolder(parsed.run) if parsed.run else None))
    args: Submit = parse(Submit, arguments, "python -m launcher submit", defaults)
    config = resolve_length(args.config, arguments)
    with open_run_folder(args.run, config.recipe) as run:
        names_processes = flag_given(arguments, "processes")
        asked = TrainingRequest(run, config, args.resources, not args.keep_batch, names_processes, args.scale_rule)
        return carry_out(prepare_run(asked), args.dry_run)


def run_resume(parsed: Resume, arguments: Sequence[str]) -> int:
    """Carry out `resume`.

    Raises:
        Refused: there is no such run, or something is wrong.
    """
    config = read_config(RunFolder(parsed.run))
    if parsed.new_run:
        config = replace(config, init_state="all")  # unless the command line says --init-state weights
    args: Resume = parse(Resume, arguments, "python -m launcher resume", replace(parsed, config=config))
    run, config = RunFolder(args.new_run or args.run), resolve_length(args.config, arguments)
    if args.new_run:
        config = replace(config, init_from=args.run)
        if run.config.exists():
            again = command("launcher", "resume", run.path)
            raise Refused(f"--as {run.path}: this run exists already; go on with it: {again}")
    # False: the number of micro-batches is part of what the bits of this run follow from.
    asked = TrainingRequest(run, config, args.resources, False, flag_given(arguments, "processes"))
    return carry_out(prepare_run(asked), args.dry_run)
