"""`trainer benchmark ring grid digits`: train every recipe with several seeds, and write the tables."""

from __future__ import annotations

import os
import sys
from concurrent.futures.process import BrokenProcessPool

from trainer.benchmark.arguments import Benchmark
from trainer.benchmark.page import Document, tell
from trainer.benchmark.registry import RECIPES
from trainer.benchmark.results import Trial
from trainer.benchmark.work import kept, settings, train_all
from trainer.core.fields import Refused
from trainer.core.registry import choose
from trainer.core.stopping import Outcome


def run_benchmark(args: Benchmark) -> Outcome:
    """Do the trainings that are missing, and write the tables.

    Raises:
        Refused: there is no such protocol or recipe, --out holds other results, or the document has no place for them.
    """
    jobs = plan(args)
    if args.markdown:
        Document.open(args.markdown)  # refused now, not after hours
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"--out: the folder {args.out} cannot be made: {error.strerror}") from error
    missing = [job for job in jobs if kept(job, args.out) is None]
    processes = args.processes or len(os.sched_getaffinity(0))
    try:
        for count, job in enumerate(train_all(missing, args.out, processes), 1):
            print(f"{count} of {len(missing)}: {job.protocol}, {job.recipe}, seed {job.seed}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return Outcome.INTERRUPTED
    except BrokenProcessPool:
        print("a training was killed; the same command goes on", file=sys.stderr)
        return Outcome.FAILED
    print(tell(jobs, args.out, Document.open(args.markdown) if args.markdown else None))
    return Outcome.FINISHED


def plan(args: Benchmark) -> list[Trial]:
    """Return the trainings that are asked for, the first seed of every recipe first.

    Raises:
        Refused: a name or a number is wrong.
    """
    for name in ("seeds", "steps", "processes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise Refused(f"--{name} must be positive, but is {value}")
    if not args.protocols:
        raise Refused(f"name what to learn: {', '.join(RECIPES)}")
    jobs = []
    for protocol in dict.fromkeys(args.protocols):
        for recipe in dict.fromkeys(args.recipe or RECIPES[protocol]):
            trial = choose(RECIPES[protocol], recipe, f"{protocol} recipe")
            jobs += [Trial(protocol, recipe, seed, args.steps or trial.steps) for seed in range(args.seeds)]
    for job in jobs:
        settings(job).check()
    return sorted(jobs, key=lambda job: job.seed)
