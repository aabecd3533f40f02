"""The runs that are served, their checkpoints, and the workers that hold a generator each."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from command_line.suggestion import did_you_mean
from trainer.runs.checkpoint import find_checkpoints, newest_or_refuse
from trainer.runs.run_folder import RunFolder
from trainer.serving.limits import Unknown
from trainer.serving.served import ServedGenerator
from trainer.serving.worker import Worker

STOP_S = 10.0  # for the batch that a worker is at


@dataclass(frozen=True)
class ServedRun:
    """One folder, by the name that requests give it."""

    name: str
    folder: Path
    newest: str
    """The checkpoint that is meant where none is named: the newest whole one when serving began. Empty: it has none."""

    def checkpoints(self) -> list[tuple[str, int]]:
        """Return the name and the images seen of each checkpoint, from new to old."""
        return [(c.path.name, c.images_seen) for c in find_checkpoints(RunFolder(self.folder).checkpoints)]


class Catalogue:
    """What is served.

    Args:
        folders: of runs.
        batch_size: pictures that a generator paints at once.
        most_loaded: generators that are kept besides the newest of each run.

    Raises:
        Refused: a folder is no run, or its newest checkpoint cannot be used.
    """

    def __init__(self, folders: Sequence[Path], batch_size: int, most_loaded: int) -> None:
        self.batch_size, self.most_loaded = batch_size, most_loaded
        self.runs: dict[str, ServedRun] = {}
        for folder in folders:
            name = free_name(folder.resolve().name, self.runs)
            self.runs[name] = ServedRun(name, folder, newest_name(folder))
        self.lock = threading.Lock()
        self.others: OrderedDict[tuple[str, str], Worker] = OrderedDict()
        self.newest = {(run.name, run.newest): self.start(run, run.newest) for run in self.runs.values()}
        try:
            self.served = {name: worker.served.result() for (name, _), worker in self.newest.items()}
        except BaseException:
            self.stop()
            raise

    def start(self, run: ServedRun, checkpoint: str) -> Worker:
        """Return a worker that loads a checkpoint's generator."""
        load = partial(ServedGenerator, run.folder, checkpoint or None, self.batch_size)
        return Worker(f"{run.name} {checkpoint}", load)

    def find(self, name: str, checkpoint: str) -> tuple[ServedRun, str]:
        """Return the run and the checkpoint that a request means.

        Args:
            name: of the run; empty: the first one.
            checkpoint: its name, or the images it had seen; empty: the newest one.

        Raises:
            Unknown: there is none.
        """
        if name and name not in self.runs:
            hint = did_you_mean(name, self.runs, f"there is {', '.join(self.runs)}")
            raise Unknown(f"run: there is no {name!r}; {hint}")
        run = self.runs[name or next(iter(self.runs))]
        if checkpoint in ("", run.newest):
            return run, run.newest
        known = run.checkpoints()
        for path, seen in known:
            if checkpoint == path or (checkpoint.isdecimal() and int(checkpoint) == seen):
                return run, path
        there = ", ".join(path for path, _ in known) or "none"
        raise Unknown(f"checkpoint: {run.name} has no {checkpoint!r}; there is {there}")

    def worker(self, run: ServedRun, checkpoint: str) -> Worker:
        """Return the worker of a checkpoint; the one that was wanted longest ago makes room for it."""
        key = (run.name, checkpoint)
        if key in self.newest:
            return self.newest[key]
        with self.lock:
            # A worker that could not load is stopped: what was in its way may be gone.
            if key not in self.others or self.others[key].stopped:
                self.others[key] = self.start(run, checkpoint)
                while len(self.others) > self.most_loaded:
                    self.others.popitem(last=False)[1].stop()
            self.others.move_to_end(key)
            return self.others[key]

    def stop(self) -> None:
        """End all workers, each after its batch."""
        with self.lock:
            workers = [*self.newest.values(), *self.others.values()]
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.thread.join(STOP_S)


def newest_name(folder: Path) -> str:
    """Return the name of a run's newest whole checkpoint; empty where the folder has no checkpoints at all.

    Raises:
        Refused: all are damaged.
    """
    run = RunFolder(folder)
    return newest_or_refuse(run).path.name if find_checkpoints(run.checkpoints) else ""


def free_name(name: str, taken: dict[str, ServedRun]) -> str:
    """Return the name, or with a number behind it if another run has it: name-2, name-3…"""
    names = [name, *(f"{name}-{k}" for k in range(2, len(taken) + 2))]
    return next(one for one in names if one not in taken)
