"""`python -m trainer.tracking.tensorboard_mirror RUN`: keeps RUN/tensorboard a copy of the journals, beside training.

    RUN/tensorboard/<segment>/events.out.tfevents.*    the rows of metrics.jsonl with those of system.jsonl, sample
                                                       grids, evaluations

What a rollback has made different is a segment of its own, as in W&B. Like the uploader it ends when the trainer does.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from trainer.core.stopping import REQUESTS
from trainer.runs.journal import Follower
from trainer.runs.run_folder import RunFolder
from trainer.tracking.attempt_rows import AttemptRows
from trainer.tracking.evaluation_rows import evaluation_columns
from trainer.tracking.mirror_process import log_line, one_line, sole_sender, watch_trainer
from trainer.tracking.system_columns import SystemColumns
from trainer.tracking.tensorboard_events import EventFiles
from trainer.tracking.tracker import Identity

POLL_S = 1.0
RETRY_S = 30.0  # after a full disk


class TensorboardMirror:
    """Writes the rows of a run folder into event files, in order, each once.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.written = 0
        self.segment = -1
        self.files: EventFiles | None = None

    def run_until(self, ended: Callable[[], bool]) -> None:
        """Follow the run until it has ended, and write everything."""
        while True:
            try:
                while not self.follow(ended):
                    pass
                return
            except OSError as error:
                log_line(f"TensorBoard: {one_line(error)}; next try in {RETRY_S:g} s")
                self.close()
                if ended():
                    return
                time.sleep(RETRY_S)

    def follow(self, ended: Callable[[], bool]) -> bool:
        """Write rows as they appear. True when the run has ended, False when metrics.jsonl was cut: follow it anew."""
        metrics, system, evaluations = map(Follower, (self.run.metrics, self.run.system, self.run.evaluations))
        figures, attempts = SystemColumns(), AttemptRows(self.run)
        try:
            while True:
                last_round = ended()  # asked before reading, so that what was written before the end is read
                rows = metrics.read()
                figures.add(system.read())
                attempts.read()
                identity = Identity.load(self.run.wandb_identity)
                if metrics.replaced():  # asked last, as the uploader does
                    return False
                for row in rows:
                    found = figures.take(row["images_seen"])
                    columns = {f"system/{name}": value for name, value in found.items() if name != "images_seen"}
                    columns |= attempts.columns(row["images_seen"], found.get("time"))
                    self.add(identity, row | columns, found.get("time"))
                for evaluation in evaluations.read():
                    self.open(identity, evaluation["images_seen"]).add_evaluation(evaluation_columns(evaluation))
                if self.files:
                    self.files.flush()
                if last_round and not rows:
                    self.close()
                    return True
                time.sleep(0 if rows else POLL_S)
        finally:
            for file in (metrics, system, evaluations, attempts):
                file.close()

    def add(self, identity: Identity, row: dict[str, float], time_s: float | None) -> None:
        """Write a row with its pictures."""
        images_seen = int(row["images_seen"])
        files = self.open(identity, images_seen)
        self.written += images_seen > files.last
        files.add_row(row, time_s, {"samples": self.run.sample(images_seen)})

    def open(self, identity: Identity, images_seen: int) -> EventFiles:
        """Return the files of the segment that a row belongs to."""
        number = identity.segment_of(images_seen)
        if self.files is None or number != self.segment:
            self.close()
            self.files, self.segment = EventFiles(self.run.tensorboard / identity.segments[number].id), number
        return self.files

    def close(self) -> None:
        """Close the files."""
        if self.files:
            self.files.close()
        self.files = None


def write_events(run: RunFolder) -> int:
    """Write what RUN/tensorboard lacks; return how many rows that were.

    Raises:
        BlockingIOError: another process writes it.
    """
    run.tensorboard.mkdir(exist_ok=True)
    mirror = TensorboardMirror(run)
    with sole_sender(run.tensorboard / "lock", wait=False):
        while not mirror.follow(lambda: True):
            pass
    return mirror.written


def main() -> None:
    """Mirror the run folder named on the command line until the parent process ends."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", type=Path)
    run, ended = RunFolder(parser.parse_args().run), Event()
    for number in REQUESTS:
        signal.signal(number, signal.SIG_IGN)  # Slurm sends them to every process of a job; the trainer decides
    os.nice(10)
    Thread(target=watch_trainer, args=(lambda _: ended.set(),), daemon=True).start()
    with sole_sender(run.tensorboard / "lock", wait=True):
        TensorboardMirror(run).run_until(ended.is_set)


if __name__ == "__main__":
    main()
