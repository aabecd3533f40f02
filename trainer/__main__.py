"""python -m trainer train | sample | fingerprint."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the number of threads changes the bits on a CPU

import sys
from collections.abc import Sequence

import tyro

from shards.index import DataError
from trainer.commands import Fingerprint, Sample, Train, read_train, run_fingerprint, run_sample, run_train
from trainer.settings import Refused

DESCRIPTION = """Train a generative adversarial network, paint with it, compare runs to the bit.

Exit codes: 0 finished, 1 failed, 2 refused (bad input), 75 interrupted and saved (the same command goes on),
130 stopped at once by a second Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parsed = tyro.cli(Train | Sample | Fingerprint, args=arguments, prog="python -m trainer", description=DESCRIPTION)
    try:
        if isinstance(parsed, Train):
            return run_train(read_train(parsed, arguments[1:]))
        return run_sample(parsed) if isinstance(parsed, Sample) else run_fingerprint(parsed)
    except (Refused, DataError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
