"""Run `trainer evaluate`, as one process or as a group of ranks that share the extraction of features."""

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
from trainer.evaluation.prepare import plan_evaluation, with_checkpoint_name
from trainer.launch.local_processes import common, end_with_watching_parent, run_group, wait_for_main


def run_evaluate(args: Evaluate) -> Outcome:
    """Run the command: as a rank if a launcher has started this process as one, else with processes of its own.

    Raises:
        Refused: it cannot be done; only features in the cache were written.
    """
    end_with_watching_parent()
    try:
        if is_rank():
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever started the ranks answers Ctrl-C and ends them
            select_gpu(rank_variable("LOCAL_RANK", 0))
            return evaluate_as_rank(args, World(rank_variable("RANK", 0), rank_variable("WORLD_SIZE", 1)))
        refuse_crowd("trainer evaluate")
        return evaluate_locally(args)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the features that are there", file=sys.stderr)
        return Outcome.KILLED


def rank_variable(variable: str, alone: int) -> int:
    """Return a variable of this rank, such as RANK; `alone` where accelerate sets none, for a single process."""
    return int(os.environ.get(variable, alone))


def select_gpu(local_rank: int) -> None:
    """Make "cuda" mean the GPU of this rank."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())


def evaluate_locally(args: Evaluate) -> Outcome:
    """Evaluate with new processes on this machine, or in this one if one is enough."""
    args = with_checkpoint_name(args)
    size = default_processes() if args.processes is None else args.processes
    if size < 1:
        raise Refused(f"--processes must be positive, but is {size}")
    plan = plan_evaluation(args)
    size = min(size, plan.parts)  # more processes than groups of images would idle
    if size == 1:
        return finish_evaluation(args, plan, World())
    del plan  # frees the generator and the extractor: the processes load their own
    return common(run_group(command_line(args), size, wait_for_main)[:1])


def evaluate_as_rank(args: Evaluate, world: World) -> Outcome:
    """Do the part of one rank; rank 0 then measures.

    Rank 0 raises every refusal itself, so the other ranks end quietly: the user gets one message.
    """
    try:
        args = with_checkpoint_name(args)
        plan = plan_evaluation(args, "learn" if world.main else "wait")  # one rank trains a missing classifier
        if world.main:
            return finish_evaluation(args, plan, world)
        plan.extract(world)
    except Refused:
        if world.main:
            raise
    return Outcome.FINISHED


def finish_evaluation(args: Evaluate, plan: EvaluationPlan, world: World) -> Outcome:
    """Extract with the other ranks, then measure, print and write: what rank 0 does."""
    plan.extract(world)
    evaluation = plan.measure()
    evaluation.show()
    if note := plan.facts["extractor_note"]:
        print(f"the extractor {note}")
    if args.json:
        evaluation.write(args.json)
    if args.out:
        print(f"the nearest real pictures of generated ones: {plan.write_nearest(args.out)}")
    if plan.run:
        evaluation.record(plan.run)
        if args.seed_set == "select" and (best := choose_best(plan.run, evaluation)):
            print(f"best checkpoint by {best.column}: {best.checkpoint}")
    plan.remove_generated_features()
    return Outcome.FINISHED


def default_processes() -> int:
    """Return the number of GPUs, or of cores if there is none."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))
