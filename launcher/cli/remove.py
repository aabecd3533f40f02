"""`launcher rm`: remove a run that has ended."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from command_line.help_page import HelpPage
from launcher.jobs import runs
from launcher.jobs.runs import SlurmQueue
from launcher.prepare.folder import PrepareFolder, is_preparation
from launcher.prepare.progress import gather_preparation
from launcher.status.facts import RunState, gather_facts
from launcher.status.progress import read_progress
from launcher.status.states import judge_state
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.core.migration import load_json
from trainer.runs.lease import Lease
from trainer.runs.lease_holder import Owner, living_holder
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Rm:
    """Remove a run that has ended, with all that it has written. W&B keeps what it was sent."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"runs/NAME": "after a question"})

    run: tyro.conf.Positional[Path]
    """The run folder."""
    yes: bool = False
    """Do not ask."""


def run_rm(args: Rm) -> int:
    """Carry out `rm`: 0 when the run is gone, 1 when something is left, or the answer was no.

    Raises:
        Refused: there is no such run, it may be live, or there is nobody to ask.
    """
    # Before it is resolved: who names a link may not know which folder would go.
    if args.run.is_symlink():
        there = command("launcher", "rm", args.run.resolve())
        raise Refused(f"{args.run} is a link: name the folder that it leads to, as in: {there}")
    if is_preparation(args.run):
        return remove_preparation(PrepareFolder(args.run.resolve()), args.yes)
    run = runs.existing_run(args.run.resolve())
    refuse_foreign(run)
    warning = refuse_live(run)
    files, size = count_contents(run.path)
    checkpoints, seen = len([*run.checkpoints.glob("[0-9]*-r*")]), read_progress(run, 0).images_seen
    print(
        f"{run.path}: {seen:,} images seen, {checkpoints} checkpoints, {files:,} files, {size / 1e6:,.1f} MB{warning}"
    )
    if not args.yes and not ask_for_consent(run.path):
        print("nothing is removed")
        return 1
    return tell_what_is_left(run.path, remove_alone(run))


def tell_what_is_left(path: Path, left: list[OSError]) -> int:
    """Remove a folder whose contents are gone, and return 0; else say what could not be removed, and return 1."""
    if not left:
        try:
            path.rmdir()
        except OSError as error:
            left = [error]
    if left:
        print(
            f"{len(left)} files or folders are left; the first: {left[0].filename}: {left[0].strerror}", file=sys.stderr
        )
        return 1
    print("removed")
    return 0


def remove_preparation(folder: PrepareFolder, yes: bool) -> int:
    """Remove the folder of a preparation, after a question; the dataset, and what of it is unfinished there, stays.

    Raises:
        Refused: it is live, or that cannot be told.
    """
    queue = SlurmQueue()
    status = gather_preparation(folder, queue)
    if status.state.live:
        end = command("launcher", "cancel", folder.path)
        raise Refused(f"{folder.path} is {status.words}; end it first: {end}")
    if status.state is RunState.UNKNOWN and not queue.absent:
        raise Refused(f"whether {folder.path} has ended cannot be told: {status.reason}")
    files, size = count_contents(folder.path)
    out = status.preparation.out
    print(f"{folder.path}: {status.words}, {files:,} files, {size / 1e6:,.1f} MB; what lies in {out} stays")
    if not yes and not ask_for_consent(folder.path):
        print("nothing is removed")
        return 1
    return tell_what_is_left(folder.path, remove_files(folder.path, [folder.record]))


def refuse_foreign(run: RunFolder) -> None:
    """Refuse a folder whose config.json is something else's: many programs have a file of this name.

    Raises:
        Refused: it does not hold the settings of a run.
    """
    try:
        values = load_json(run.config)
    except (OSError, ValueError):
        values = {}
    if not {"total_images", "batch_size", "tracking"} <= values.keys():
        raise Refused(f"{run.path} holds no run: its {run.config.name} has not the settings of one")


def ask_for_consent(path: Path) -> bool:
    """Ask on the terminal.

    Raises:
        Refused: there is none.
    """
    if not sys.stdin.isatty():
        raise Refused(f"{path} is removed without a question only with --yes, and here is no terminal to ask on")
    try:
        return input("remove it for good? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def refuse_live(run: RunFolder) -> str:
    """Refuse a run that trains or will; return what should be known before it is removed.

    Raises:
        Refused: it is live, or that cannot be told.
    """
    queue = SlurmQueue()
    facts = gather_facts(run, queue)
    state, _ = judge_state(facts)
    trained = facts.holder if facts.holder and facts.trains else None
    # The lease of a job that Slurm no longer runs is what a kill has left behind, and no reason to refuse.
    if trained and (facts.record is None or runs.is_live(facts.job) or not trained.owner.is_slurm_job):
        raise Refused(f"{run.path} is {state}, by {trained}; end it first: {command('launcher', 'cancel', run.path)}")
    if facts.record and runs.is_live(facts.job):
        raise Refused(
            f"{run.path} has job {facts.record.job}, which is {state}; end it first: "
            f"{command('launcher', 'cancel', run.path)}"
        )
    # A Slurm that is away may have the job in its queue. Where there is no Slurm at all, the user is told, and decides.
    if facts.problem and not queue.absent:
        raise Refused(f"whether {run.path} has ended cannot be told: {facts.problem}")
    return f"; {facts.problem}, so whether its job waits cannot be told" if facts.problem else ""


def remove_alone(run: RunFolder) -> list[OSError]:
    """Remove a run while nobody else can begin to train in it; return what could not be removed.

    Raises:
        Refused: somebody trains in it.
    """
    try:
        # Taken as for training, so that no job can begin in a folder that is half gone.
        held = Lease(run, Owner("python -m launcher rm"), 0, lambda _: None)
    except Refused as error:
        if living_holder(run) or shutil.disk_usage(run.path).free:  # on a full disk there is no room even for the lease
            raise Refused(f"{run.path} cannot be removed: {error}") from None
        return remove_files(run.path, [run.config, run.lease])
    left = remove_files(run.path, [run.config, run.lease])
    held.release()
    return left


def count_contents(folder: Path) -> tuple[int, int]:
    """Count the files in a folder and their bytes; what links lead to is not in it."""
    files = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    size = 0
    for file in files:
        try:
            # lstat: of a link only the link itself would go.
            size += file.lstat().st_size
        except OSError:
            continue
    return len(files), size


def remove_files(folder: Path, kept: Sequence[Path]) -> list[OSError]:
    """Remove all that is in a folder; return what could not be.

    Args:
        folder: its path.
        kept: what stays, but the first, which goes last: until then the folder can be told for what it is.
    """
    left = []
    # From the bottom up: a folder must be empty before it can be removed.
    for where, folders, files in os.walk(folder, topdown=False):  # which does not follow links
        for path in [Path(where) / name for name in [*files, *folders]]:
            try:
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                elif path not in kept:
                    path.unlink()
            except OSError as error:
                left.append(error)
    if not left:
        kept[0].unlink(missing_ok=True)
    return left
