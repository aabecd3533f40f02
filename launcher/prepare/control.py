"""A preparation is checked and submitted, gone on with, and ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from launcher.jobs.file_systems import file_system, is_local, is_this_machine
from launcher.jobs.fresh_folder import make_fresh_folder
from launcher.jobs.resource_request import use_slurm
from launcher.jobs.runs import HOME
from launcher.prepare.arguments import ArrayRequest, Prepare, PrepareIndex, parse_prepare
from launcher.prepare.balance import plan_shares
from launcher.prepare.folder import Preparation, PrepareFolder, find_preparations
from launcher.prepare.progress import live_jobs
from launcher.prepare.submission import ShareJob, fit_share_job, share_executor, submit_shares
from launcher.prepare.work import Work
from shards.building.interruption import Interruption, run_interruptible
from shards.building.share import ListedWork
from shards.storage.place import Url
from slurm import control
from slurm.records import Node
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder


def begin_preparation(args: Prepare | PrepareIndex, arguments: Sequence[str]) -> int:
    """Make a dataset, by jobs on a cluster, or without one on this machine; return the exit code.

    Raises:
        Refused: the cluster cannot give what is asked for, or does not take it.
    """
    resources = args.jobs.resources
    asked = resources.of_share()
    if not use_slurm(asked):
        if resources.cluster == "auto" and resources.nodes > 1:
            print(f"no Slurm here: this machine in place of {resources.nodes} nodes", file=sys.stderr)
        return args.work.run_here()
    path = args.jobs.run or known_folder(args.work) or make_fresh_folder(HOME / (args.work.out.name or "dataset"))
    if RunFolder(path).config.exists():
        raise Refused(f"--run {path} holds a run that trains: name another folder")
    try:
        return submit_preparation(PrepareFolder(path), args, arguments, resume=False)
    finally:
        if not PrepareFolder(path).record.exists():
            remove_empty_folders(path)


def remove_empty_folders(path: Path) -> None:
    """Remove a folder in which nothing was submitted, and the one around it, unless there is something in them."""
    for where, *_ in os.walk(path, topdown=False):
        with suppress(OSError):
            os.rmdir(where)
    with suppress(OSError):
        path.parent.rmdir()


def resume_preparation(path: Path, more: Sequence[str]) -> int:
    """Go on with a preparation; what is done stays, and the rest is shared out anew. Return the exit code.

    Args:
        path: of its folder.
        more: words of the command line that follow those with which it began.

    Raises:
        Refused: it is live; the cluster cannot give what is asked for, or does not take it.
    """
    folder = PrepareFolder(path.resolve())
    arguments = [*folder.newest.arguments, *more]
    try:
        os.chdir(folder.newest.directory)  # paths of the command line are seen from there
    except OSError as error:
        raise Refused(f"{folder.newest.directory}, where it was submitted, is gone: {error.strerror}") from error
    here = Path.cwd()
    folder = PrepareFolder(folder.path.relative_to(here) if folder.path.is_relative_to(here) else folder.path)
    args = parse_prepare(arguments)
    if use_slurm(args.jobs.resources.of_share()):
        return submit_preparation(folder, args, arguments, resume=True)
    code = args.work.in_folder(folder.path, resume=True).run_here()
    if code == 0:
        folder.save(replace(folder.newest, finished_here=True))
    return code


def known_folder(work: Work) -> Path | None:
    """Return the folder of the preparation that --resume goes on with; None: there is none."""
    if not work.resume:
        return None
    return next((known.path for known in find_preparations() if known.newest.out == place_text(work)), None)


def place_text(work: Work) -> str:
    """Return where the dataset will be: the same text from wherever it is named."""
    return str(work.out) if isinstance(work.out, Url) else str(work.out.resolve())


def submit_preparation(
    folder: PrepareFolder, args: Prepare | PrepareIndex, arguments: Sequence[str], resume: bool
) -> int:
    """Check everything, list the source, and queue the shares; return the exit code.

    Raises:
        Refused: the cluster cannot give what is asked for, or does not take it.
    """
    if folder.record.exists():
        refuse_live(folder)
    work = args.work.in_folder(folder.path, resume)
    job = fit_share_job(folder, args.jobs.resources)
    check_shared(work)
    if args.jobs.dry_run:
        shares = plan_shares([], 0)
        preparation = preparation_of(folder, work, arguments, ListedWork(0, []), args.jobs.resources)
        print(share_executor(folder, replace(preparation, shares=shares), job.request, folder.code(1)).text())
        return 0
    act = partial(list_and_submit, folder, work, arguments, job, args.jobs.resources)
    return run_interruptible("launcher prepare", act, "nothing is queued, and --resume goes on")


def list_and_submit(
    folder: PrepareFolder,
    work: Work,
    arguments: Sequence[str],
    job: ShareJob,
    resources: ArrayRequest,
    interruption: Interruption,
) -> None:
    """List what is to be done, share it out, and queue it.

    Raises:
        DataError: a mistake in what the user has asked for.
        Refused: Slurm does not take it.
        BuildStopped: interrupted.
    """
    listed = work.list_tasks(interruption)
    if listed is None:  # which it has said
        return
    preparation = preparation_of(folder, work, arguments, listed, resources)
    array, finish = submit_shares(folder, preparation, job)
    left = preparation.total - preparation.done_before
    print(f"{left:,} of {preparation.total:,} {work.unit} in {len(preparation.shares)} shares")
    number = f"jobs {array} and, behind it, {finish}" if array else f"job {finish}, as all shares are made"
    print(f"submitted {number}; watch it with: {command('launcher', 'status', folder.path)}")


def preparation_of(
    folder: PrepareFolder, work: Work, arguments: Sequence[str], listed: ListedWork, resources: ArrayRequest
) -> Preparation:
    """Return what is to be submitted."""
    before = folder.newest.submission if folder.record.exists() else 0
    return Preparation(
        kind=work.kind,
        unit=work.unit,
        arguments=[*arguments],
        directory=os.getcwd(),
        out=place_text(work),
        submission=before + 1,
        total=listed.total,
        done_before=listed.total - sum(task.size for task in listed.tasks),
        shares=plan_shares(listed.tasks, resources.nodes),
    )


def check_shared(work: Work) -> None:
    """Refuse places that the other nodes do not see.

    Raises:
        Refused: naming the first one; or Slurm does not answer.
    """
    try:
        nodes = control.list_nodes()
    except control.SlurmError as error:
        raise Refused(str(error)) from error
    for place in (*work.sources, work.out, *work.work_folders):
        if isinstance(place, Path) and (kind := hidden_from(place.absolute(), nodes)):
            raise Refused(
                f"{place} lies on a {kind}, which no other node sees: name one on a file system that all nodes share, "
                "or use --cluster local"
            )


def hidden_from(path: Path, nodes: Sequence[Node]) -> str:
    """Return the kind of file system that a path, which need not exist yet, is on, if other nodes do not see it."""
    kind = file_system(next(there for there in (path, *path.parents) if there.exists()).resolve())
    return kind if is_local(kind) and not all(is_this_machine(node) for node in nodes) else ""


def refuse_live(folder: PrepareFolder) -> None:
    """Refuse to submit what waits or runs.

    Raises:
        Refused: it does, or Slurm cannot be asked.
    """
    try:
        live = live_jobs(folder)
    except control.SlurmError as error:
        raise Refused(str(error)) from error
    if live:
        raise Refused(
            f"{folder.path} has jobs that wait or run: watch them with `{command('launcher', 'status', folder.path)}`, "
            f"or end them with `{command('launcher', 'cancel', folder.path)}`"
        )
