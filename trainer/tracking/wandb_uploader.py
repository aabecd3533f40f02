"""`python -m trainer.tracking.wandb_uploader RUN`: sends W&B what it lacks of a run, beside the process that trains.

How it starts and ends: mirror_process.py.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from trainer.config.wandb_environment import resolve_mode
from trainer.core.stopping import REQUESTS
from trainer.runs.journal import Follower, Row
from trainer.runs.run_folder import RunFolder
from trainer.tracking.attempt_rows import AttemptRows
from trainer.tracking.mirror_process import log_line, one_line, sole_sender, watch_trainer
from trainer.tracking.system_columns import SystemColumns
from trainer.tracking.tracker import Identity
from trainer.tracking.wandb_alerts import Alerts
from trainer.tracking.wandb_besides import Besides
from trainer.tracking.wandb_run import WandbRun, stop_service

POLL_S = 0.5
RETRY_S = (1.0, 60.0)  # the first and the longest wait after a failure


class Uploader:
    """Sends the rows of a run folder to the W&B runs of its segments, in order, each once.

    Args:
        run: the run folder.
        online: to the server, not into files for `wandb sync`.
        before_row: is called before each row; what it raises ends the sending between two rows.
    """

    def __init__(self, run: RunFolder, online: bool, before_row: Callable[[], None] = lambda: None) -> None:
        self.run = run
        self.before_row = before_row
        self.online = online
        self.outcome = "interrupted"  # until somebody knows better
        self.opened: list[WandbRun] = []
        self._segment = 0  # earlier ones are complete
        self._current: WandbRun | None = None
        self._besides = Besides(run)

    def run_until(self, ended: Callable[[], bool]) -> None:
        """Follow the run until it has ended and everything is sent, whatever W&B does meanwhile."""
        wait_s = RETRY_S[0]
        while True:
            try:
                while not self.follow(ended):
                    wait_s = RETRY_S[0]
                return
            except Exception as error:  # W&B's failures have many types, and none may end the uploader
                log_line(f"W&B: {one_line(error)}; next try in {wait_s:g} s")
                self._current = None
                abandon_service()
            pause(wait_s, ended)
            wait_s = min(2 * wait_s, RETRY_S[1])

    def follow(self, ended: Callable[[], bool]) -> bool:
        """Send rows as they appear. True when the run has ended, False when metrics.jsonl was cut: follow it anew."""
        metrics, system, alerts = Follower(self.run.metrics), Follower(self.run.system), Alerts(self.run)
        figures, attempts = SystemColumns(), AttemptRows(self.run)
        try:
            while True:
                last_round = ended()  # asked before reading, so that what was written before the end is read
                rows = metrics.read()
                figures.add(system.read())
                attempts.read()
                identity = Identity.load(self.run.wandb_identity)
                if metrics.replaced():  # asked last: if it was not cut by now, the rows belong to the segments as read
                    return False
                for row in rows:
                    self.before_row()
                    self._send(identity, row, figures.take(row["images_seen"]), alerts, attempts)
                alerts.send(self._current)
                last = last_round and not rows
                self._send_besides(attempts, last)
                if last:
                    self.finish()
                    return True
                time.sleep(0 if rows else POLL_S)
        finally:
            for file in (metrics, system, alerts, attempts):
                file.close()

    def finish(self) -> None:
        """Wait until W&B has what was sent to it; TimeoutError if that takes too long."""
        current, self._current = self._current, None
        if current:
            current.finish(self.outcome)

    def _send_besides(self, attempts: AttemptRows, last: bool) -> None:
        """Send what is no row; a failure of that keeps no row from W&B."""
        if self._current is None:
            return
        try:
            self._besides.send_tables(self._current, attempts.table())
            if self.online:  # wandb's offline files hold no lineage
                self._besides.send_artifacts(self._current, last)
        except Exception as error:  # W&B's failures have many types
            log_line(f"W&B: tables or artifacts were not sent: {one_line(error)}")

    def _send(self, identity: Identity, row: Row, figures: Row, alerts: Alerts, attempts: AttemptRows) -> None:
        number = identity.segment_of(row["images_seen"])
        if number < self._segment:
            return
        if self._current is None or number > self._segment:
            self.finish()
            self._segment = number
            self._current = WandbRun(self.run, identity, number, self.online)
            self.opened.append(self._current)
            log_line(f"W&B run {self._current.id} has the rows up to images_seen {self._current.last}")
        # An alarm is written before the row of its images, and its picture belongs to that row.
        alerts.send(self._current, until=row["images_seen"])
        self._current.send(row, figures, attempts.columns(row["images_seen"], figures.get("time")))


def abandon_service() -> None:
    """End wandb's own process: a new one asks the server anew what has arrived."""
    try:
        stop_service()
    except Exception as error:  # it may be dead already
        log_line(f"W&B: {one_line(error)}")


def pause(seconds: float, ended: Callable[[], bool]) -> None:
    """Wait before another try; when the run has ended, only a moment."""
    deadline = time.monotonic() + seconds
    time.sleep(POLL_S)
    while time.monotonic() < deadline and not ended():
        time.sleep(POLL_S)


def main() -> None:
    """Upload the run folder named on the command line until the parent process ends."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--mode", default="auto")
    arguments = parser.parse_args()
    for number in REQUESTS:
        signal.signal(number, signal.SIG_IGN)  # Slurm sends them to every process of a job; the trainer decides
    os.nice(10)
    run, mode, ended = RunFolder(arguments.run), resolve_mode(arguments.mode), Event()
    log_line(f"mode {mode}")
    if mode == "disabled":
        return
    uploader = Uploader(run, online=mode != "offline")

    def end(outcome: str) -> None:
        uploader.outcome = outcome
        ended.set()

    Thread(target=watch_trainer, args=(end,), daemon=True).start()
    with sole_sender(run.wandb / f"{mode}.lock", wait=True):
        uploader.run_until(ended.is_set)


if __name__ == "__main__":
    main()
