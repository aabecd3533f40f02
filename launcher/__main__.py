"""python -m launcher submit | resume | sync | init."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the number of threads changes the bits on a CPU

import sys
from collections.abc import Sequence

import tyro

from launcher.init import Init, run_init
from launcher.submit import Resume, Submit, run_resume, run_submit
from launcher.sync import Sync, run_sync
from shards.index import DataError
from slurm.settings import Refused as SlurmRefused
from trainer.settings import Refused

DESCRIPTION = """Train a generator from a folder of shards, survive anything, watch it.

  python -m launcher submit                       the default recipe on the demo's pictures
  python -m launcher submit dcgan-64 --data DIR   on your own shards
  python -m launcher resume runs/NAME             go on, with any number of processes
  python -m launcher sync runs/NAME               send W&B what it lacks

Exit codes: 0 finished, 1 failed, 2 refused (bad input), 75 interrupted and saved (resume goes on),
130 stopped at once by a second Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parsed = tyro.cli(Submit | Resume | Sync | Init, args=arguments, prog="python -m launcher", description=DESCRIPTION)
    try:
        match parsed:
            case Submit():
                return run_submit(parsed, arguments[1:])
            case Resume():
                return run_resume(parsed, arguments[1:])
            case Sync():
                return run_sync(parsed)
            case Init():
                return run_init(parsed)
    except (Refused, SlurmRefused, DataError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
