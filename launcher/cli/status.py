"""`launcher status`: what the runs do and why, how fast, and what a kill now would lose."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro
from rich.console import Group, RenderableType
from rich.live import Live

from command_line.help_page import HelpPage
from command_line.streams import reader_gone
from launcher.cli.wide_console import wide_console
from launcher.jobs import runs
from launcher.jobs.runs import SlurmQueue
from launcher.prepare.folder import PrepareFolder, find_preparations, is_preparation
from launcher.prepare.progress import PrepareStatus, gather_preparation
from launcher.prepare.view import preparation_details, preparations_table
from launcher.status.escaped import Escaped
from launcher.status.run_status import RunStatus, gather_status
from launcher.status.view import run_details, status_table

EVERY_S = 3.0


@dataclass(frozen=True)
class Status:
    """Tell what runs do and why, how fast, and what a kill now would lose. Of one run, all that is known."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "": "all runs under ./runs",
            "runs/NAME": "all that is known of one",
            "--watch": "look again until Ctrl-C",
        },
    )

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders; default: all under ./runs, the newest first."""
    json: bool = False
    """Print a list of objects; docs/cluster.md says what they hold."""
    watch: bool = False
    """Look again every few seconds, until Ctrl-C."""


def run_status(args: Status) -> int:
    """Carry out `status`.

    Raises:
        Refused: a folder that is named holds no run.
    """
    if args.watch:
        with suppress(KeyboardInterrupt):
            watch_statuses(args)
    elif args.json:
        print(as_json(gather_statuses(args), indent=1))
    else:
        console = wide_console()
        console.print(render_statuses(args, gather_statuses(args), console.is_terminal))
    return 0


@dataclass(frozen=True)
class Found:
    """What is asked for."""

    runs: list[RunStatus]
    preparations: list[PrepareStatus]


def gather_statuses(args: Status) -> Found:
    """Gather what is asked for."""
    named = [PrepareFolder(path) for path in args.runs if is_preparation(path)]
    folders = [runs.existing_run(path) for path in args.runs if not is_preparation(path)]
    # One for all runs: where Slurm does not answer, only the first of them waits for its time-out.
    queue = SlurmQueue()
    return Found(
        [gather_status(run, queue) for run in (folders if args.runs else runs.find_runs())],
        [gather_preparation(folder, queue) for folder in (named if args.runs else find_preparations())],
    )


def render_statuses(args: Status, found: Found, terminal: bool) -> RenderableType:
    """Return the tables, or all that is known of the one run or preparation that is named."""
    if len(args.runs) == 1:
        return Escaped(run_details(found.runs[0]) if found.runs else preparation_details(found.preparations[0]))
    tables = [status_table(found.runs, terminal)] if found.runs else []
    tables += [preparations_table(found.preparations)] if found.preparations else []
    if not tables:
        return f"no runs under ./{runs.HOME}; begin one with: python -m launcher submit"
    return Escaped(Group(*tables[:1], *(part for table in tables[1:] for part in ("", table))))


def watch_statuses(args: Status) -> None:
    """Look again and again, in place on a terminal, else one look after the other."""
    console = wide_console()
    # A dumb terminal cannot go back up over what it has shown.
    if args.json or not console.is_terminal or console.is_dumb_terminal:
        while not reader_gone():
            found = gather_statuses(args)
            if args.json:
                print(as_json(found), flush=True)
            else:
                console.print(time.strftime("%H:%M:%S"), render_statuses(args, found, terminal=False), sep="\n")
            time.sleep(EVERY_S)
        return
    # Drawn when there is something new: rich's own clock would draw the same four times a second.
    with Live(console=console, auto_refresh=False) as live:
        while not reader_gone():
            live.update(
                Group(
                    render_statuses(args, gather_statuses(args), terminal=True),
                    time.strftime("%H:%M:%S, Ctrl-C ends this"),
                )
            )
            live.refresh()
            time.sleep(EVERY_S)


def as_json(found: Found, indent: int | None = None) -> str:
    """Return the runs as a list of objects; without an indent, in one line."""
    # allow_nan=False: better an error here than a file that strict readers refuse.
    objects = [*(run.to_json() for run in found.runs), *(one.to_json() for one in found.preparations)]
    return json.dumps(objects, indent=indent, allow_nan=False)
