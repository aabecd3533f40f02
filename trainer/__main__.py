"""python -m trainer train | sample | interpolate | edit | project | serve | export | import | evaluate | …."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the number of threads changes the bits on a CPU

import sys
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from command_line.arguments import parse
from command_line.printable import printable
from command_line.streams import run
from trainer.distributed.rank_environment import is_rank
from trainer.launch.job_context import JobContext

DESCRIPTION = """Train a generative adversarial network, generate with it, compare runs to the bit.

Exit codes: 0 finished, 1 failed, 2 refused (bad input), 75 interrupted and saved (the same command goes on),
130 stopped at once by a second Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    context = JobContext()
    if arguments[:1] == ["train"] and is_rank():
        context.stop.install()  # before torch, which takes seconds: a signal is answered at the first step's end
    from command_line.plugins import PluginError
    from shards.dataset.index import DataError
    from trainer.core.fields import Refused

    try:
        return carry_out(arguments, context)
    except (Refused, DataError, PluginError) as error:
        print(f"refused: {printable(error)}", file=sys.stderr)
        return 2


def carry_out(arguments: Sequence[str], context: JobContext) -> int:
    """Run one command.

    Raises:
        Refused, DataError: bad input; nothing was done.
    """
    from trainer.benchmark.arguments import Benchmark
    from trainer.commands.making import MAKING
    from trainer.commands.sample import Interpolate, Sample, run_interpolate, run_sample
    from trainer.commands.train import Fingerprint, Train, read_train, run_fingerprint, run_train
    from trainer.core.aliases import todays_flags
    from trainer.evaluation.arguments import Evaluate
    from trainer.exporting.arguments import Export, Pull, Push
    from trainer.importing.arguments import Import
    from trainer.serving.arguments import Serve

    arguments = todays_flags(arguments)  # settings by the names of the format before, too
    first: Any = Train | Sample | Interpolate | Fingerprint | Evaluate | Benchmark | Serve
    commands: Any = reduce(or_, MAKING, first | Export | Import | Push | Pull)
    parsed = parse(commands, arguments, "python -m trainer", description=DESCRIPTION)
    if make := MAKING.get(type(parsed)):
        return make(parsed)
    match parsed:
        case Train():
            return run_train(read_train(parsed, arguments[1:]), context)
        case Sample():
            return run_sample(parsed)
        case Interpolate():
            return run_interpolate(parsed)
        case Evaluate():
            from trainer.evaluation.command import run_evaluate

            return run_evaluate(parsed)
        case Benchmark():
            from trainer.benchmark.command import run_benchmark  # scikit-learn and matplotlib take a second

            return run_benchmark(parsed)
        case Export() | Import() | Push() | Pull():
            return run_bundle_command(parsed)
        case Serve():
            from trainer.serving.start import start_serving  # FastAPI is an extra

            return start_serving(parsed)
        case _:
            return run_fingerprint(parsed)


def run_bundle_command(parsed: Any) -> int:
    """Run one of the commands about bundles.

    Raises:
        Refused, DataError: bad input; nothing was done.
    """
    from trainer.exporting.arguments import Export, Push
    from trainer.exporting.command import run_export
    from trainer.exporting.transfer import run_pull, run_push
    from trainer.importing.arguments import Import
    from trainer.importing.command import run_import

    match parsed:
        case Export():
            return run_export(parsed)
        case Import():
            return run_import(parsed)
        case Push():
            return run_push(parsed)
        case _:
            return run_pull(parsed)


if __name__ == "__main__":
    run(main)
