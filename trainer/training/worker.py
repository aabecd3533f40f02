"""One training process, whichever door it came in by: ours, `torchrun` or `accelerate launch`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from shards.dataset.index import DataError
from shards.storage.errors import Unreachable
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.core.stopping import Diverged, Failed, Outcome, OutOfMemory
from trainer.distributed.gpu_places import RefusedEverywhere
from trainer.distributed.nccl_errors import in_words, meaning_of
from trainer.distributed.world import World
from trainer.gan.assembly import set_up_device, world_of
from trainer.launch.job_context import JobContext
from trainer.launch.out_of_memory import is_out_of_memory, out_of_memory_message
from trainer.runs.journal import EventKind, Journal, event_row
from trainer.runs.run_folder import RunFolder
from trainer.tracking.console import set_up_logging
from trainer.training.loop import Training

log = logging.getLogger(__name__)


def train_as_rank(config: Config, run: RunFolder, context: JobContext) -> Outcome:
    """Train as one of the processes of a run, and say how it ended.

    Raises:
        Refused: the settings do not fit the data or the device.
    """
    index = open_data(config)
    with known_errors(config, run, context):
        accelerator = set_up_device(config, context.place)
        world = world_of(accelerator)
        refuse_other_world(world)
        config.check_world(world.size)
        training = Training(config, run, index, accelerator, context)
    outcome, facts = Outcome.FAILED, dict[str, object]()
    try:
        with known_errors(config, run, context):
            outcome = training.train()
        log.info(exit_message(outcome, training.replica.state.images_seen, run))
    except Failed as error:
        facts = {"problem": str(error), "diverged": isinstance(error, Diverged)}
        log.error("%s", error)
    except (OSError, DataError) as error:
        facts = {"problem": str(error)}
        log.error("failed: %s", error)
    except RuntimeError as error:
        facts = {"problem": str(error).partition("\n")[0]}
        raise
    finally:
        training.watchdog.close()  # first: to close takes time, and would look like a stall
        training.recorder.end(outcome.name.lower(), context.stop.received, **facts)
    if outcome is not Outcome.FAILED and dist.is_initialized():
        dist.destroy_process_group()  # not after a failure: it waits for the others, which may be gone
    return outcome


@contextmanager
def known_errors(config: Config, run: RunFolder, context: JobContext) -> Iterator[None]:
    """Say in words what is known of errors of libraries.

    Raises:
        OutOfMemory: noted in the run's events by the rank that it happened to.
        Refused: the ranks were started so that NCCL cannot join them.
        Failed: another process is gone, or NCCL has failed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        rank = int(os.environ.get("RANK", "0"))
        if is_out_of_memory(error):
            problem = out_of_memory_message(error, config, run, f"rank {rank} on {context.place}")
            # Here and not in rank 0's hands, for which this rank is only gone.
            Journal(run.events).append(event_row(EventKind.OUT_OF_MEMORY, problem=problem))
            raise OutOfMemory(problem) from error
        meaning = meaning_of(error)
        if meaning is None or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        raise (Refused if meaning.wrong_start else Failed)(in_words(meaning, error)) from error


def refuse_other_world(world: World) -> None:
    """Refuse to train with more or fewer processes than were started.

    Raises:
        Refused: naming both numbers.
    """
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    if world.size != asked:
        raise Refused(
            f"{asked} processes were started, but this one is rank {world.rank} of {world.size}: variables of another "
            "launcher are in its environment (docs/cluster.md lists them); unset them"
        )


def exit_message(outcome: Outcome, images_seen: int, run: RunFolder) -> str:
    """Return the last line of a run's log."""
    if outcome is Outcome.FINISHED:
        sample = command("trainer", "sample", run.path, "--out", "grid.png")
        return f"finished: {images_seen:,} images seen; sample with: {sample}"
    return f"interrupted and saved at {images_seen:,} images; go on with: {command('launcher', 'resume', run.path)}"


def run_rank(config: Config, run: RunFolder, context: JobContext) -> Outcome:
    """Train in this process; what concerns all processes alike is said by the first one only, if they share a log."""
    rank = int(os.environ.get("RANK", "0"))
    set_up_logging(rank, context.own_log)
    try:
        return train_as_rank(config, run, context)
    except Refused as error:
        if rank == 0 or context.own_log:
            log.error("refused: %s", error)
        told_to_all = dist.is_initialized() or isinstance(error, RefusedEverywhere)
        if context.own_log and (rank == 0 or not told_to_all):  # what all were told is written once
            Journal(run.events).append(event_row(EventKind.REFUSED, problem=f"rank {rank} on {context.place}: {error}"))
        return Outcome.REFUSED
    except (Failed, Unreachable) as error:  # before there was anything to record it with
        log.error("%s", error)
        return Outcome.FAILED
