"""python -m launcher COMMAND: train, and look after what trains."""

from __future__ import annotations

import os

from trainer.core.aliases import todays_flags

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the number of threads changes the bits on a CPU

import sys
from collections.abc import Sequence
from typing import TypeVar

from command_line import arguments as command_line
from command_line.loading import loading
from command_line.plugins import PluginError
from command_line.printable import printable
from command_line.streams import run
from command_line.suggestion import did_you_mean
from shards.dataset.index import DataError
from slurm.errors import SlurmUsageError
from trainer.core.fields import Refused

T = TypeVar("T")

HELP = """Train a generator from a folder of shards, survive anything, watch it.

{commands}

  python -m launcher submit                       the default recipe on the demo's pictures
  python -m launcher submit dcgan-64 --data DIR   on your own shards
  python -m launcher study STUDY.toml             which is better, and how sure are we?
  python -m launcher prepare SRC --out DIR        shards of your pictures, made on a cluster
  python -m launcher recipes                      what can be trained, and after which paper
  python -m launcher submit --nodes 2-4           on what Slurm has free, from 2 nodes up to 4
  python -m launcher status                       all runs under ./runs, newest first
  python -m launcher report runs/NAME             one page with all of it, to look at and to send
  python -m launcher logs runs/NAME -f            follow all ranks, across restarts
  python -m launcher evaluate runs/NAME           how good its pictures are, with intervals
  python -m launcher cancel runs/NAME             save and end
  python -m launcher resume runs/NAME             go on, with any number of processes

What a command takes: python -m launcher COMMAND --help, or --help-all for all of it

Exit codes: 0 finished, 1 failed, 2 refused (bad input), 75 interrupted and saved (resume goes on),
130 stopped at once by Ctrl-C."""


def submit(arguments: Sequence[str]) -> int:
    """Train: on Slurm where there is one, else on this machine."""
    with loading():
        from launcher.cli.submit import Submit, run_submit

    return run_submit(parse(Submit, arguments), arguments)


def prepare(arguments: Sequence[str]) -> int:
    """Build shards on the nodes of a cluster: as shards build, shared out."""
    with loading():
        from launcher.cli.prepare import run_prepare

    return run_prepare(arguments)


def resume(arguments: Sequence[str]) -> int:
    """Go on with a run, on any number of nodes or processes."""
    with loading():
        from launcher.prepare.folder import named_preparation

    if path := named_preparation(arguments):
        from launcher.cli.prepare import run_resume_preparation

        return run_resume_preparation(path, arguments)
    with loading():
        from launcher.cli.submit import Resume, run_resume

    return run_resume(parse(Resume, arguments), arguments)


def evaluate(arguments: Sequence[str]) -> int:
    """Measure what a run paints, in a job of its own."""
    with loading():
        from launcher.cli.evaluate import Evaluate, run_evaluate

    return run_evaluate(parse(Evaluate, arguments))


def study(arguments: Sequence[str]) -> int:
    """Compare recipes and settings over seeds, and say which is better, if that can be told."""
    with loading():
        from launcher.cli.study import Study, run_study

    return run_study(parse(Study, arguments))


def recipes(arguments: Sequence[str]) -> int:
    """Which recipes there are, what each follows, and what it sets."""
    with loading():
        from launcher.cli.recipes import Recipes, run_recipes

    return run_recipes(parse(Recipes, arguments))


def status(arguments: Sequence[str]) -> int:
    """What the runs do and why, how fast, and what a kill now would lose."""
    with loading():
        from launcher.cli.status import Status, run_status

    return run_status(parse(Status, arguments))


def watch(arguments: Sequence[str]) -> int:
    """The same live, with keys for logs, pictures, cancel and resume."""
    with loading():
        from launcher.cli.watch import Watch, run_watch

    return run_watch(parse(Watch, arguments))


def report(arguments: Sequence[str]) -> int:
    """One page about runs or a study, to look at and to send."""
    with loading():
        from launcher.cli.report import Report, run_report

    return run_report(parse(Report, arguments))


def logs(arguments: Sequence[str]) -> int:
    """What the ranks of a job say, merged by time, or one of them."""
    with loading():
        from launcher.cli.logs import Logs, run_logs

    return run_logs(parse(Logs, arguments))


def cancel(arguments: Sequence[str]) -> int:
    """Save and end; --now ends without a save."""
    with loading():
        from launcher.cli.cancel import Cancel, run_cancel

    return run_cancel(parse(Cancel, arguments))


def rm(arguments: Sequence[str]) -> int:
    """Remove a run that has ended."""
    with loading():
        from launcher.cli.remove import Rm, run_rm

    return run_rm(parse(Rm, arguments))


def sync(arguments: Sequence[str]) -> int:
    """Send W&B what it lacks of a run."""
    with loading():
        from launcher.cli.sync import Sync, run_sync

    return run_sync(parse(Sync, arguments))


def workspace(arguments: Sequence[str]) -> int:
    """Save a W&B workspace that shows what runs do."""
    with loading():
        from launcher.cli.workspace import Workspace, run_workspace

    return run_workspace(parse(Workspace, arguments))


def init(arguments: Sequence[str]) -> int:
    """Write lienzo.toml, the project's defaults."""
    with loading():
        from launcher.cli.init import Init, run_init

    return run_init(parse(Init, arguments))


def plugins(arguments: Sequence[str]) -> int:
    """What installed packages add to lienzo, and what of it cannot be used."""
    with loading():
        from launcher.cli.plugins import Plugins, run_plugins

    return run_plugins(parse(Plugins, arguments))


def doctor(arguments: Sequence[str]) -> int:
    """Try what a job needs, on the nodes, and say what is wrong and what to do."""
    with loading():
        from launcher.cli.doctor import Doctor, run_doctor

    return run_doctor(parse(Doctor, arguments), arguments)


def completion(arguments: Sequence[str]) -> int:
    """Print a script that lets bash, zsh or fish complete all this."""
    with loading():
        from launcher.cli.completion import Completion, run_completion

    return run_completion(parse(Completion, arguments))


# Each loads its own modules only: torch and wandb take seconds, and most commands need neither.
ALL = (
    *(prepare, submit, resume, study, evaluate, recipes, status, watch, report, logs, cancel, rm, sync, workspace),
    *(init, plugins, doctor, completion),
)
COMMANDS = {command.__name__: command for command in ALL}


def parse(kind: type[T], arguments: Sequence[str]) -> T:
    """Read a command's arguments; on --help or a mistake, say what it takes, and exit."""
    parsed: T = command_line.parse(kind, arguments, f"python -m launcher {kind.__name__.lower()}")
    return parsed


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    name, *arguments = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if name in ("", "-h", "--help"):
        # The docstrings above are what a user reads here, so each is one line.
        lines = [f"  {name:<12}{command.__doc__}" for name, command in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)))
        # Help that nobody asked for: a command is missing, so it is a refusal.
        return 0 if name else 2
    try:
        if command := COMMANDS.get(name):
            # Names of earlier versions are replaced before tyro sees them: it would refuse them.
            return command(todays_flags(arguments))
        raise Refused(f"there is no command {name!r}; {did_you_mean(name, COMMANDS, 'see: --help')}")
    except (Refused, SlurmUsageError, DataError, PluginError) as error:
        print(f"refused: {printable(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # 128 + SIGINT, as shells report a program that Ctrl-C has ended.
        return 130


if __name__ == "__main__":
    run(main)
