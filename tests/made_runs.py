"""Run folders made by hand, and a Slurm that answers what a test wants."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from launcher.jobs import attempts
from launcher.jobs.attempts import Attempt, Cause, Decision, close_attempt
from launcher.jobs.job_record import JobRecord
from slurm import control
from slurm.parsing import as_job
from slurm.records import SlurmJob
from trainer.runs.journal import encode_row
from trainer.runs.lease_holder import Holder, Owner
from trainer.runs.run_folder import RunFolder

JOB = 12
CONFIG = {"total_images": 1_000, "epochs": None, "batch_size": 32, "d_steps": 1, "tracking": {"mode": "offline"}}
ELSEWHERE = Holder(Owner.slurm_job(JOB), 0, "n7", "another boot", 77, 0, "token")


def moment(after_s: float = 0) -> str:
    """A time from now, as the journals write it."""
    return datetime.fromtimestamp(time.time() + after_s, UTC).isoformat(timespec="milliseconds")


@dataclass
class MadeRun:
    """A run folder; each method adds to it what a training would have left."""

    folder: Path
    run: RunFolder = field(init=False)

    def __post_init__(self) -> None:
        self.run = RunFolder(self.folder)
        self.folder.mkdir(parents=True)
        self.run.config.write_text(json.dumps(CONFIG))

    def event(self, kind: str, after_s: float, **fields: object) -> None:
        """Add a row to the events."""
        with self.run.events.open("ab") as file:
            file.write(encode_row({"time": moment(after_s), "kind": kind, **fields}))

    def steps(self, *rows: tuple[int, float, float], after_s: float = -100) -> None:
        """Add logged steps: images seen, seconds since the start (which was at `after_s`), and images per second."""
        for images, elapsed_s, speed in rows:
            row = {"images_seen": images, "epoch": images / 100, "loss_d": float("nan"), "loss_g": 0.5}
            with self.run.metrics.open("ab") as file:
                file.write(encode_row(row))
            row = {"time": time.time() + after_s + elapsed_s, "images_seen": images, "elapsed_s": elapsed_s}
            with self.run.system.open("ab") as file:
                file.write(encode_row(row | {"images_per_s": speed}))

    def checkpoint(self, images: int, rollbacks: int = 0) -> None:
        """Add a durable checkpoint, by its name."""
        (self.run.checkpoints / f"{images:012d}-r{rollbacks:02d}").mkdir(parents=True)

    def submitted(self, after_s: float = -200, cancelled: bool = False) -> None:
        """Submit it to the cluster."""
        JobRecord(JOB, 1, "2", 1, 90, moment(after_s), cancelled=cancelled).save(self.run)

    def began(self, restart: int = 0, after_s: float = -150, images: int = 0) -> Attempt:
        """Let an attempt of the job begin."""
        made = Attempt(JOB, restart, moment(after_s), ("n1", "n2"), images)
        attempts.write_attempt(self.run, made)
        return made

    def ended(self, made: Attempt, cause: Cause, decision: Decision, detail: str = "", saved: int = 0) -> None:
        """Let it end."""
        closed = asdict(close_attempt(made, cause, detail, saved)) | {"decision": decision}
        with self.run.attempts.open("ab") as file:
            file.write(encode_row(closed))

    def holds(self, holder: Holder) -> None:
        """Let somebody hold the lease."""
        self.run.lease.write_text(json.dumps(asdict(holder)))


def job(state: str, reason: str = "None", **fields: str) -> SlurmJob:
    """What Slurm says of the job."""
    return as_job({"JobId": str(JOB), "JobState": state, "Reason": reason, "NodeList": "n[1-2]", **fields})


def slurm_says(monkeypatch: pytest.MonkeyPatch, answer: SlurmJob | str | None, found: bool = True) -> list[int | str]:
    """Let Slurm answer so about any job; text: it does not answer, for that reason. Returns what it is asked for."""
    asked: list[int | str] = []

    def answering(number: int | str) -> SlurmJob | None:
        asked.append(number)
        if isinstance(answer, str):
            raise control.SlurmError(answer)
        return answer

    monkeypatch.setattr(control, "find_cluster", lambda: "slurm.conf" if found else None)
    monkeypatch.setattr(control, "show_job", answering)
    return asked
