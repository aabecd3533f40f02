"""python -m trainer train | sample | interpolate | fingerprint | evaluate | benchmark."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the number of threads changes the bits on a CPU

import sys
from collections.abc import Sequence
from typing import Any

import tyro

from shards.index import DataError
from trainer.benchmark.arguments import Benchmark
from trainer.commands import Fingerprint, Train, read_train, run_fingerprint, run_train
from trainer.evaluation.arguments import Evaluate
from trainer.painting import Interpolate, Sample, run_interpolate, run_sample
from trainer.settings import Refused

DESCRIPTION = """Train a generative adversarial network, paint with it, compare runs to the bit.

Exit codes: 0 finished, 1 failed, 2 refused (bad input), 75 interrupted and saved (the same command goes on),
130 stopped at once by a second Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: Any = Train | Sample | Interpolate | Fingerprint | Evaluate | Benchmark
    parsed = tyro.cli(commands, args=arguments, prog="python -m trainer", description=DESCRIPTION)
    try:
        match parsed:
            case Train():
                return run_train(read_train(parsed, arguments[1:]))
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
            case _:
                return run_fingerprint(parsed)
    except (Refused, DataError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
