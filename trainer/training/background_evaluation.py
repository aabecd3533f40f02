"""Evaluations beside a training: one process of low priority at a time, which training never waits for."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.config.config import Config
from trainer.config.groups import MetricsSettings
from trainer.distributed.rank_environment import own_environment
from trainer.evaluation.best_record import BestCheckpoint
from trainer.launch.local_processes import WATCHED
from trainer.runs import journal
from trainer.runs.checkpoint import Checkpoint, find_checkpoints
from trainer.runs.journal import EventKind
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tracker import Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationPlace:
    """Where evaluations beside training compute."""

    gpus: str = ""
    """CUDA_VISIBLE_DEVICES; nothing: they compute on the CPU."""
    processes: int = 1


def evaluation_place(config: Config, training: torch.device) -> EvaluationPlace:
    """Return where evaluations of a run compute whose rank 0 trains on a device: on a GPU only if one is named."""
    if config.measure_on.startswith("cuda"):
        index, visible = torch.device(config.measure_on).index or 0, os.environ.get("CUDA_VISIBLE_DEVICES")
        return EvaluationPlace(visible.split(",")[index] if visible else str(index))
    # Training on a CPU needs all cores. Beside a GPU half of rank 0's are spared by the threads that decode.
    return EvaluationPlace(processes=1 if training.type == "cpu" else max(1, len(os.sched_getaffinity(0)) // 2))


class Evaluations:
    """Has checkpoints of a run evaluated on the seed set "select".

    Args:
        run: the run.
        settings: when, and what.
        tracker: takes note.
        place: where they compute.
    """

    def __init__(self, run: RunFolder, settings: MetricsSettings, tracker: Tracker, place: EvaluationPlace) -> None:
        self.run, self.settings, self.tracker, self.place = run, settings, tracker, place
        self.reached = dict[int, int]()  # images seen at the last evaluation after so many rollbacks, which lead back
        for row in journal.read_rows(run.evaluations):
            measured = Checkpoint.parse(Path(row["checkpoint"])) if row["seed_set"] == "select" else None
            if measured:
                self.reach(measured)
        self.child: subprocess.Popen[bytes] | None = None
        self.checkpoint = ""  # that is being evaluated
        self.started, self.cpu_before = 0.0, 0.0

    def kept(self) -> set[str]:
        """Return the names of the checkpoints that must stay: the best one, and the one that is being evaluated."""
        best = BestCheckpoint.of(self.run)
        return {self.checkpoint, best.checkpoint if best else ""}

    def saved(self) -> None:
        """Have the newest checkpoint, which is durable by now, evaluated if its time has come."""
        every, newest = self.settings.every_images, next(iter(find_checkpoints(self.run.checkpoints)), None)
        if not every or newest is None or newest.images_seen // every <= self.reached.get(newest.rollbacks, 0) // every:
            return
        # Its turn is taken even if nothing can be started now, or a checkpoint between two turns would have it.
        self.reach(newest)
        name = newest.path.name
        if self.child:
            log.warning("checkpoint %s is not evaluated: %s still is", name, self.checkpoint)
            self.tracker.event(EventKind.EVALUATION_SKIPPED, checkpoint=name, running=self.checkpoint)
        else:
            self.start(name)

    def reach(self, checkpoint: Checkpoint) -> None:
        """Note that a checkpoint's turn has come."""
        before = self.reached.get(checkpoint.rollbacks, 0)
        self.reached[checkpoint.rollbacks] = max(before, checkpoint.images_seen)

    def start(self, name: str) -> None:
        """Start the process that evaluates a checkpoint; it ends with this one."""
        self.checkpoint, self.started, self.cpu_before = name, time.monotonic(), children_cpu_s()
        try:
            with self.run.evaluation_log.open("ab") as output:
                self.child = subprocess.Popen(
                    ["nice", "-n", "19", sys.executable, "-m", "trainer", *self.command(name)],
                    env=own_environment(os.environ) | {WATCHED: "1", "CUDA_VISIBLE_DEVICES": self.place.gpus},
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=Path(__file__).parents[2],  # where `-m trainer` is found, wherever the user stands
                    start_new_session=True,
                )
        except OSError as error:
            log.warning("checkpoint %s is not evaluated: %s", name, error)
            self.tracker.event(EventKind.EVALUATION_FAILED, checkpoint=name, problem=str(error))

    def command(self, name: str) -> list[str]:
        """Return the arguments of `trainer evaluate` for a checkpoint."""
        settings = self.settings
        chosen = ["--extractor", settings.extractor] if settings.extractor else []
        numbers = ["--num-samples", str(settings.num_samples), "--processes", str(self.place.processes)]
        options = ["--checkpoint", name, "--seed-set", "select", "--metrics", *settings.chosen]
        return ["evaluate", str(self.run.path.resolve()), *numbers, *options, *chosen]

    def collect(self, wait: bool = False) -> None:
        """Take note of the end of an evaluation, if it has come.

        Args:
            wait: for that end.
        """
        if self.child is None or (self.child.poll() is None and not wait):
            return
        code = self.child.wait()
        assert self.child.stdin
        self.child.stdin.close()
        wall_s = time.monotonic() - self.started
        cpu_s = children_cpu_s() - self.cpu_before
        share = cpu_s / (wall_s * len(os.sched_getaffinity(0)))
        figures = {"seconds": round(wall_s, 1), "cpu_s": round(cpu_s, 1), "cpu_share": round(share, 4)}
        kind = EventKind.EVALUATION_FAILED if code else EventKind.EVALUATION
        self.tracker.event(kind, checkpoint=self.checkpoint, exit_code=code, **figures)
        if code:
            log.warning("the evaluation of %s has failed: see %s", self.checkpoint, self.run.evaluation_log)
        self.child, self.checkpoint = None, ""

    def close(self, finished: bool) -> None:
        """Wait for the evaluation of a run that is finished; end that of any other, whose next start has others."""
        if self.child and not finished:
            self.child.kill()
        self.collect(wait=True)


def children_cpu_s() -> float:
    """Return the CPU time, in seconds, of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
