"""python -m trainer train | sample | interpolate | edit | project | serve | export | import | evaluate | …."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the number of threads changes the bits on a CPU

import sys
from collections.abc import Sequence
from typing import TypeVar

from command_line import arguments as command_line
from command_line.loading import loading
from command_line.plugins import PluginError
from command_line.printable import printable
from command_line.program import program
from command_line.streams import run
from command_line.suggestion import did_you_mean
from shards.errors import DataError
from trainer.core.aliases import todays_flags
from trainer.core.fields import Refused
from trainer.distributed.rank_environment import is_rank
from trainer.launch.job_context import JobContext

T = TypeVar("T")

HELP = """Train a generative adversarial network, generate with it, compare runs to the bit.

{commands}

What a command takes: {program} COMMAND --help, or --help-all for all of it

Exit codes: 0 finished, 1 failed, 2 refused (bad input), 75 interrupted and saved (the same command
goes on), 130 stopped at once by a second Ctrl-C."""


def train(arguments: Sequence[str]) -> int:
    """Train a run, or go on with it: the same command on the same run folder resumes."""
    context = JobContext()
    if is_rank():
        context.stop.install()  # before torch, which takes seconds: a signal is answered at the first step's end
    with loading():
        from trainer.commands.train import Train, read_train, run_train

    return run_train(read_train(parse(Train, arguments), arguments), context)


def sample(arguments: Sequence[str]) -> int:
    """Generate pictures: one grid, or a file each."""
    with loading():
        from trainer.commands.sample import Sample, run_sample

    return run_sample(parse(Sample, arguments))


def interpolate(arguments: Sequence[str]) -> int:
    """Film the way from picture to picture."""
    with loading():
        from trainer.commands.sample import Interpolate, run_interpolate

    return run_interpolate(parse(Interpolate, arguments))


def seeds(arguments: Sequence[str]) -> int:
    """Score the pictures of seeds one by one, and list the best."""
    with loading():
        from trainer.commands.seeds import Seeds, run_seeds

    return run_seeds(parse(Seeds, arguments))


def edit(arguments: Sequence[str]) -> int:
    """Change pictures along directions, or from class to class."""
    with loading():
        from trainer.commands.edit import Edit, run_edit

    return run_edit(parse(Edit, arguments))


def stylemix(arguments: Sequence[str]) -> int:
    """Mix the codes of pictures by layer."""
    with loading():
        from trainer.commands.stylemix import Stylemix, run_stylemix

    return run_stylemix(parse(Stylemix, arguments))


def project(arguments: Sequence[str]) -> int:
    """Find the code whose picture is nearest to a given one."""
    with loading():
        from trainer.commands.project import Project, run_project

    return run_project(parse(Project, arguments))


def nearest(arguments: Sequence[str]) -> int:
    """Show which pictures of the data are nearest to generated or given ones."""
    with loading():
        from trainer.commands.nearest import Nearest, run_nearest

    return run_nearest(parse(Nearest, arguments))


def serve(arguments: Sequence[str]) -> int:
    """Show what generators paint: a page for a browser and an API, until Ctrl-C."""
    with loading():
        from trainer.serving.arguments import Serve
        from trainer.serving.start import start_serving

    return start_serving(parse(Serve, arguments))


def evaluate(arguments: Sequence[str]) -> int:
    """Measure generated pictures against real ones, with intervals."""
    with loading():
        from trainer.evaluation.arguments import Evaluate
        from trainer.evaluation.command import run_evaluate

    return run_evaluate(parse(Evaluate, arguments))


def benchmark(arguments: Sequence[str]) -> int:
    """Count the modes that recipes capture, by the published protocols."""
    with loading():
        from trainer.benchmark.arguments import Benchmark
        from trainer.benchmark.command import run_benchmark

    return run_benchmark(parse(Benchmark, arguments))


def fingerprint(arguments: Sequence[str]) -> int:
    """Print images_seen, and one SHA-256 over all state of the newest checkpoint."""
    with loading():
        from trainer.commands.train import Fingerprint, run_fingerprint

    return run_fingerprint(parse(Fingerprint, arguments))


def export(arguments: Sequence[str]) -> int:
    """Write a trained generator into a folder that needs neither the run nor lienzo."""
    with loading():
        from trainer.exporting.arguments import Export
        from trainer.exporting.command import run_export

    return run_export(parse(Export, arguments))


def import_(arguments: Sequence[str]) -> int:
    """Make a bundle of a checkpoint that another program has written."""
    with loading():
        from trainer.importing.arguments import Import
        from trainer.importing.command import run_import

    return run_import(parse(Import, arguments))


def push(arguments: Sequence[str]) -> int:
    """Copy a bundle to a URL."""
    with loading():
        from trainer.exporting.arguments import Push
        from trainer.exporting.transfer import run_push

    return run_push(parse(Push, arguments))


def pull(arguments: Sequence[str]) -> int:
    """Copy a bundle from a URL, and compare every file with its manifest."""
    with loading():
        from trainer.exporting.arguments import Pull
        from trainer.exporting.transfer import run_pull

    return run_pull(parse(Pull, arguments))


# Each loads its own modules only: a rank should not wait for what edits or exports pictures.
ALL = (
    *(train, sample, interpolate, seeds, edit, stylemix, project, nearest),
    *(serve, evaluate, benchmark, fingerprint, export, import_, push, pull),
)
COMMANDS = {command.__name__.rstrip("_"): command for command in ALL}


def parse(kind: type[T], arguments: Sequence[str]) -> T:
    """Read a command's arguments; on --help or a mistake, say what it takes, and exit."""
    parsed: T = command_line.parse(kind, arguments, f"python -m trainer {kind.__name__.lower()}")
    return parsed


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    name, *arguments = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if name in ("", "-h", "--help"):
        # The docstrings above are what a user reads here, so each is one line.
        lines = [f"  {name:<12} {command.__doc__}" for name, command in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines), program=" ".join(program("trainer"))))
        # Help that nobody asked for: a command is missing, so it is a refusal.
        return 0 if name else 2
    try:
        if command := COMMANDS.get(name):
            # Names of earlier versions are replaced before tyro sees them: it would refuse them.
            return command(todays_flags(arguments))
        raise Refused(f"there is no command {name!r}; {did_you_mean(name, COMMANDS, 'see: --help')}")
    except (Refused, DataError, PluginError) as error:
        print(f"refused: {printable(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    run(main)
