"""`trainer evaluate`: how good are the pictures of a run, or of a folder?"""

from __future__ import annotations

import os
import signal
import sys

import torch

from trainer.core.fields import Refused
from trainer.core.stopping import Outcome
from trainer.distributed.rank_environment import is_rank, refuse_crowd
from trainer.distributed.world import World
from trainer.evaluation.arguments import Evaluate, command_line
from trainer.evaluation.best_checkpoint import choose_best
from trainer.evaluation.plan import EvaluationPlan
from trainer.evaluation.prepare import prepare, settled
from trainer.launch.local_processes import common, end_with_parent, run_group, wait_for_main


def run_evaluate(args: Evaluate) -> Outcome:
    """Carry out `evaluate`: as one of a group if somebody has started one, else with processes of our own.

    Raises:
        Refused: it cannot be done; nothing was written but features.
    """
    end_with_parent()
    try:
        if is_rank():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            take_gpu(place("LOCAL_RANK", 0))
            return evaluate(args, World(place("RANK", 0), place("WORLD_SIZE", 1)))
        refuse_crowd("trainer evaluate")
        return evaluate_here(args)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the features that are there", file=sys.stderr)
        return Outcome.KILLED


def place(variable: str, alone: int) -> int:
    """Return what this process was told of its place; accelerate tells nothing to a process that is alone."""
    return int(os.environ.get(variable, alone))


def take_gpu(local_rank: int) -> None:
    """Have "cuda" mean the GPU of this rank, of those that the machine has."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())


def evaluate_here(args: Evaluate) -> Outcome:
    """Evaluate with processes of this machine."""
    args = settled(args)
    size = default_processes() if args.processes is None else args.processes
    if size < 1:
        raise Refused(f"--processes must be positive, but is {size}")
    plan = prepare(args)
    size = min(size, plan.parts)
    if size == 1:
        return conclude(args, plan, World())
    del plan
    return common(run_group(command_line(args), size, wait_for_main)[:1])


def evaluate(args: Evaluate, world: World) -> Outcome:
    """Do one process's part; the main process, which meets all refusals itself, makes the figures of it.

    Whoever is told no checkpoint by its name finds one itself; the main process does what others have not.
    """
    try:
        args = settled(args)
        plan = prepare(args, "learn" if world.main else "wait")
        if world.main:
            return conclude(args, plan, world)
        plan.extract(world)
    except Refused:
        if world.main:
            raise
    return Outcome.FINISHED


def conclude(args: Evaluate, plan: EvaluationPlan, world: World) -> Outcome:
    """Extract with the others, and measure, show and write."""
    plan.extract(world)
    evaluation = plan.measure()
    evaluation.show()
    if note := plan.facts["extractor_note"]:
        print(f"the extractor {note}")
    if args.json:
        evaluation.write(args.json)
    if args.out:
        print(f"the nearest real pictures of painted ones: {plan.show_nearest(args.out)}")
    if plan.run:
        evaluation.record(plan.run)
        if args.seed_set == "select" and (best := choose_best(plan.run, evaluation)):
            print(f"best checkpoint by {best.column}: {best.checkpoint}")
    plan.forget()
    return Outcome.FINISHED


def default_processes() -> int:
    """Return one process a GPU, or one a core."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))
