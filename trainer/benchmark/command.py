"""Run `trainer benchmark ring grid digits`: train every recipe with several seeds, and write the tables."""

from __future__ import annotations

import os
import sys
from concurrent.futures.process import BrokenProcessPool

from trainer.benchmark.arguments import Benchmark
from trainer.benchmark.output import Document, write_output
from trainer.benchmark.recipes import RECIPES
from trainer.benchmark.results import Trial
from trainer.benchmark.run_trials import kept_result, run_trials, trial_config
from trainer.core.fields import Refused
from trainer.core.registry import choose_from
from trainer.core.stopping import Outcome


def run_benchmark(args: Benchmark) -> Outcome:
    """Run the trials that have no result yet, and write the tables.

    Raises:
        Refused: there is no such protocol or recipe, --out holds other results, or the document has no place for them.
    """
    trials = plan_trials(args)
    if args.markdown:
        Document.open(args.markdown)  # a wrong document is refused now, not after hours of training
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"--out: the folder {args.out} cannot be made: {error.strerror}") from error
    missing = [trial for trial in trials if kept_result(trial, args.out) is None]
    processes = args.processes or len(os.sched_getaffinity(0))  # the cores that this job may use, not all there are
    try:
        for count, trial in enumerate(run_trials(missing, args.out, processes), 1):
            print(f"{count} of {len(missing)}: {trial.protocol}, {trial.recipe}, seed {trial.seed}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return Outcome.INTERRUPTED
    except BrokenProcessPool:
        print("a training was killed; the same command goes on", file=sys.stderr)
        return Outcome.FAILED
    print(write_output(trials, args.out, Document.open(args.markdown) if args.markdown else None))
    return Outcome.FINISHED


def plan_trials(args: Benchmark) -> list[Trial]:
    """Return the trials that are asked for, ordered by seed, so that every recipe has its first result early.

    Raises:
        Refused: a name or a number is wrong.
    """
    for name in ("seeds", "steps", "processes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise Refused(f"--{name} must be positive, but is {value}")
    if not args.protocols:
        raise Refused(f"name what to learn: {', '.join(RECIPES)}")
    trials = []
    for protocol in dict.fromkeys(args.protocols):
        for recipe in dict.fromkeys(args.recipe or RECIPES[protocol]):
            found = choose_from(RECIPES[protocol], recipe, f"{protocol} recipe")
            trials += [Trial(protocol, recipe, seed, args.steps or found.steps) for seed in range(args.seeds)]
    for trial in trials:
        trial_config(trial).check()  # before the first training, not when its turn comes
    return sorted(trials, key=lambda trial: trial.seed)
