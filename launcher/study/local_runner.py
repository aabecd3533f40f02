"""The runs of a study on this machine: one after the other, or a few at a time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

import torch

from command_line.signals import signals_to_handle
from launcher.study.plan import StudyPlan, StudyTask
from launcher.study.run_progress import note_broken
from trainer.config.config import Config
from trainer.core.stopping import REQUESTS, Outcome
from trainer.core.suspension import suspend_together
from trainer.distributed.rank_environment import own_environment
from trainer.launch.prepared_training import default_processes
from trainer.runs import lease_holder
from trainer.runs.config_loading import write_config

CODE = Path(__file__).parents[2]  # where our modules are found, wherever the user stands
POLL_S = 0.5
ADVICE = "go on with: "  # ends what a process says to a user, not why it failed
GPUS = "CUDA_VISIBLE_DEVICES"
MAX_REASON = 300  # characters of the last line of a failed process


def gpu_shares(environment: Mapping[str, str], count: int, at_once: int) -> list[str | None]:
    """Return what each of the runs that train at the same time sees of this machine's GPUs; None: there are none.

    Args:
        environment: of this process: it may see some of them only.
        count: of those that it sees.
        at_once: so many runs; with fewer GPUs some share one.
    """
    if not count:
        return [None] * at_once
    names = environment.get(GPUS, "").split(",")
    seen = names if len(names) == count and all(names) else list(map(str, range(count)))
    starts = [k * count // at_once for k in range(at_once + 1)]
    return [",".join(seen[start : max(stop, start + 1)]) for start, stop in pairwise(starts)]


class LocalRunner:
    """Trains and measures runs on this machine, until asked to stop.

    Args:
        plan: of the study that they belong to.
        at_once: so many at the same time.
    """

    def __init__(self, plan: StudyPlan, at_once: int) -> None:
        self.plan, self.at_once = plan, at_once
        self.stopping = threading.Event()
        self.children: set[subprocess.Popen[bytes]] = set()
        self.free_gpus: SimpleQueue[str | None] = SimpleQueue()
        for share in gpu_shares(os.environ, torch.cuda.device_count(), at_once):
            self.free_gpus.put(share)

    def train_and_measure(self, tasks: Sequence[tuple[StudyTask, Config]]) -> bool:
        """Train and measure them all; False: somebody asked to stop, and what was under way is saved."""
        before = {number: signal.signal(number, self.stop) for number in signals_to_handle(REQUESTS)}
        # The children have sessions of their own, which a Ctrl-Z does not reach.
        suspend_together(self.children)
        try:
            with ThreadPoolExecutor(self.at_once) as pool:
                list(pool.map(self.train_and_measure_one, *zip(*tasks, strict=True)))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return not self.stopping.is_set()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Have what runs save and end."""
        self.stopping.set()
        # A copy, since the threads add and discard children meanwhile.
        for child in list(self.children):
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)

    def train_and_measure_one(self, task: StudyTask, config: Config) -> None:
        """Train a run and measure it; one that fails is noted, and the others go on."""
        while is_trained_here(task) and not self.stopping.is_set():
            time.sleep(POLL_S)  # by what an earlier call has left behind
        if self.stopping.is_set():
            return
        write_config(task.run, config)
        if target := self.plan.target(task):
            target.save(task.run)
        print_line(f"{task.name}: trains until {task.images:,} images")
        # The cores are shared out among the runs that train at the same time.
        processes = config.processes or max(1, default_processes(config) // self.at_once)
        train = ["trainer", "train", "--run", str(task.run.path.resolve()), "--processes", str(processes)]
        measure = ["launcher.study.evaluate_run", str(task.run.path.resolve()), "--processes", str(processes)]
        gpus = self.free_gpus.get()
        try:
            done = all(self.run_module(task, command, gpus) for command in (train, measure))
        finally:
            self.free_gpus.put(gpus)
        if done:
            print_line(f"{task.name}: {describe_result(self.plan, task)}")

    def run_module(self, task: StudyTask, command: Sequence[str], gpus: str | None) -> bool:
        """Run one of our modules on these GPUs; False: it failed, or was asked to stop."""
        log = task.run.logs / "here.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as output:
            begins = output.tell()  # earlier attempts have written to the same file
            child = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=CODE,
                env=own_environment(os.environ) | ({GPUS: gpus} if gpus else {}),
                start_new_session=True,  # a Ctrl-C is ours to pass on
            )
            self.children.add(child)
            if self.stopping.is_set():  # it came between
                child.send_signal(signal.SIGTERM)
            code = child.wait()
            self.children.discard(child)
        # Asked to stop is not failed: the next call of the same command goes on with it.
        if code == 0 or self.stopping.is_set() or code == Outcome.INTERRUPTED:
            return code == 0
        lines = log.read_bytes()[begins:].decode(errors="replace").splitlines()
        words = [line.strip() for line in lines if re.search(r"\w", line) and ADVICE not in line] or ["it said nothing"]
        problem = f"{command[0]} ended with {code}: {words[-1][:MAX_REASON]}"
        note_broken(task, problem)
        print_line(f"{task.name}: FAILED: {problem}; see {log}")
        return False


def is_trained_here(task: StudyTask) -> bool:
    """Tell whether a process of this machine trains a task's run."""
    holder = lease_holder.living_holder(task.run)
    return holder is not None and holder.boot == lease_holder.boot_id()


def describe_result(plan: StudyPlan, task: StudyTask) -> str:
    """Say what came of a run."""
    if task.seed_set is None:
        speed = plan.images_per_s(task.arm)
        return "its speed could not be told" if speed is None else f"{speed:.0f} images/s"
    score, metric = plan.score(task), plan.settings.evaluation.metric
    return f"{metric} could not be measured" if score is None else f"{metric} {score:.4g}"


def print_line(line: str) -> None:
    """Say how it goes."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
