"""`launcher watch`: all runs, live."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import tyro

from command_line.help_page import HelpPage
from launcher.cli.status import Status, gather_statuses, watch_statuses
from launcher.jobs import runs
from launcher.prepare.folder import find_preparations
from launcher.watch.watched import Watched, watched_preparation, watched_run
from trainer.core.advice import command
from trainer.core.fields import Refused


@dataclass(frozen=True)
class Watch:
    """Show runs live: what they do, how fast, alerts; with keys for logs, pictures, cancel and resume. Where there is
    no terminal that can show this, print what `status` prints, again and again."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"": "all runs under ./runs", "runs/ONE runs/TWO": "two of them"})

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders; default: all under ./runs, the newest first."""


def run_watch(args: Watch) -> int:
    """Carry out `watch`.

    Raises:
        Refused: there are no runs, a folder that is named holds none, or textual is not installed.
    """
    if not args.runs and not runs.find_runs() and not find_preparations():
        begin = command("launcher", "submit")
        raise Refused(f"no runs under ./{runs.HOME}; begin one with: {begin}")
    if not can_show_screens():
        with suppress(KeyboardInterrupt):
            watch_statuses(Status(args.runs, watch=True))
        return 0
    if find_spec("textual") is None:
        without = command("launcher", "status", "--watch")
        raise Refused(f"the live view needs textual: pip install 'lienzo[watch]'; without it, there is: {without}")
    look(args)  # what is wrong with a folder that is named is said before the screen is taken
    # Loaded only now: pipes need none of it, and it takes a second.
    from launcher.watch.app import KEYBOARD, SCREEN, WatchApp
    from launcher.watch.graphics import find_graphics

    app = WatchApp(lambda: look(args), find_graphics(KEYBOARD, SCREEN))
    app.run()
    return app.return_code or 0


def look(args: Watch) -> Sequence[Watched]:
    """Look at what is asked for.

    Raises:
        Refused: a folder that is named holds no run.
    """
    found = gather_statuses(Status(args.runs))
    return [*map(watched_run, found.runs), *map(watched_preparation, found.preparations)]


def can_show_screens() -> bool:
    """Tell whether this is a terminal with a keyboard, which can write anywhere on its screen, in UTF-8."""
    terminals = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    able = os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
    return terminals and able and sys.stdout.encoding.lower().replace("-", "") == "utf8"
