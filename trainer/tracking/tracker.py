"""The journals of a run, and the processes beside it that copy them to W&B and TensorBoard."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from uuid import uuid4

from shards.atomic_files import write_atomically
from trainer.config.groups import TrackingSettings
from trainer.config.wandb_environment import overridden_variables
from trainer.core.advice import command
from trainer.core.migration import load_json, with_schema
from trainer.runs import journal
from trainer.runs.journal import EventKind, Journal, event_row
from trainer.runs.origin import original_is_elsewhere
from trainer.runs.run_folder import RunFolder
from trainer.tracking.mirror_process import start_mirror, stop_mirror

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segment:
    """One W&B run: the rows beyond `from_images_seen`, up to where a later segment takes over."""

    id: str
    from_images_seen: int
    reason: str


@dataclass(frozen=True)
class Identity:
    """What a run is called in W&B, for ever; `wandb.json` in the run folder."""

    project: str
    entity: str | None
    name: str
    group: str
    segments: tuple[Segment, ...]
    folder: str = ""
    """The run folder's full path when this was written."""
    job_type: str | None = None
    notes: str | None = None
    tags: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Read `wandb.json`."""
        stored = load_json(path)
        segments = tuple(Segment(**segment) for segment in stored["segments"])
        return cls(**stored | {"segments": segments, "tags": tuple(stored.get("tags", ()))})

    @classmethod
    def create(cls, run: RunFolder, settings: TrackingSettings) -> Identity:
        """The identity of a new run."""
        name, first = settings.name or run.path.resolve().name, uuid4().hex[:8]
        group = settings.group or f"{name}-{first}"
        segments = (Segment(first, -1, "start"),)  # -1: the row of 0 images is beyond it
        for line in overridden_variables():
            log.warning("%s", line)
        folder, besides = str(run.path.resolve()), (settings.job_type, settings.notes, settings.tag_list)
        return cls(settings.project, settings.entity, name, group, segments, folder, *besides)

    def save(self, path: Path) -> None:
        """Write `wandb.json`, atomically."""
        write_atomically(path, json.dumps(with_schema(asdict(self)), indent=2).encode() + b"\n")

    def extend(self, images_seen: int, reason: str) -> Identity:
        """The same with one more segment."""
        following = Segment(f"{self.segments[0].id}-{len(self.segments)}", images_seen, reason)
        return replace(self, segments=(*self.segments, following))

    def segment_of(self, images_seen: int) -> int:
        """The number of the segment that a row belongs to: the last one that begins before it."""
        return max(i for i, segment in enumerate(self.segments) if segment.from_images_seen < images_seen)


class Tracker:
    """The main process's journals. No call waits for W&B or fails because of it."""

    def __init__(self, run: RunFolder, settings: TrackingSettings) -> None:
        self.run = run
        self.settings = settings
        self._metrics, self._system, self._events = Journal(run.metrics), Journal(run.system), Journal(run.events)
        self._system_rows, self._system_lock = 0, Lock()  # the figures of nodes come from a thread
        self._mirrors: dict[str, subprocess.Popen[bytes] | None] = {}

    def start(self, images_seen: int, **facts: object) -> None:
        """Cut the metrics back to `images_seen`, where training begins or goes on, and start the uploader."""
        self._metrics.cut(images_seen)
        self._system_rows = max((row["row"] for row in journal.read_rows(self.run.system)), default=0)
        self._identity().save(self.run.wandb_identity)
        self.event(EventKind.START, images_seen=images_seen, **facts)
        # Last: they read the files above.
        folder = str(self.run.path.resolve())
        if self.settings.mode != "disabled":
            output, mode = self.run.wandb / "uploader.log", ("--mode", self.settings.mode)
            self._mirrors["W&B"] = start_mirror("trainer.tracking.wandb_uploader", output, folder, *mode)
        if self.settings.tensorboard:
            output = self.run.tensorboard / "mirror.log"
            self._mirrors["TensorBoard"] = start_mirror("trainer.tracking.tensorboard_mirror", output, folder)

    def metrics(self, row: Mapping[str, int | float]) -> None:
        """Record one logged step: `images_seen`, and figures that a replay repeats to the bit.

        The uploader adds to it what lies in the run folder by then: the system row and the sample grid of the same
        `images_seen`. So these come first.
        """
        self._metrics.append(row)

    def system(self, row: Mapping[str, int | float | str]) -> None:
        """Record times, speeds and memory at `images_seen`, or figures of a node: lines of all attempts, numbered."""
        with self._system_lock:
            self._system_rows += 1
            self._system.append(with_schema({"row": self._system_rows, "time": round(time.time(), 3), **row}))

    def event(self, kind: EventKind, **fields: object) -> None:
        """Record a start, a stop, a fault or a rollback."""
        self._events.append(event_row(kind, **fields))

    def sync(self) -> None:
        """Make the rows so far durable; OSError if the disk refuses, and then no checkpoint may promise them."""
        self._metrics.sync()

    def new_segment(self, images_seen: int, reason: str) -> None:
        """Send what follows `images_seen` to a new W&B run of the same group: its rows will differ from those sent.

        For a rollback, and for a resume in another numerical environment; before `start` or after it. Call it before
        the rollback is made durable: a segment too many is harmless, a missing one would mix two histories.
        """
        # The uploader reads metrics.jsonl, then wandb.json, then checks whether metrics.jsonl was cut: so this is safe.
        self._metrics.cut(images_seen)
        self._identity().extend(images_seen, reason).save(self.run.wandb_identity)
        self.event(EventKind.SEGMENT, images_seen=images_seen, reason=reason)

    def close(self, outcome: str, signal: str | None = None, timeout_s: float = 30.0, **facts: object) -> None:
        """Record the end ("finished", "interrupted" if it will go on, "failed") and let the uploader send the rest."""
        self.event(EventKind.END, outcome=outcome, signal=signal, **facts)
        for file in (self._metrics, self._system, self._events):
            try:
                file.sync()
            except OSError as error:
                log.warning("%s: %s; its last rows are lost", file.path, error.strerror)
            file.close()
        for name, mirror in self._mirrors.items():
            if mirror is not None and not stop_mirror(mirror, outcome, timeout_s):
                flag = () if name == "W&B" else ("--tensorboard",)
                log.warning(
                    "%s has not taken everything in %g s; the next attempt sends the rest, or: %s",
                    name,
                    timeout_s,
                    command("launcher", "sync", self.run.path, *flag),
                )
        self._mirrors = {}

    def _identity(self) -> Identity:
        return identity_of(self.run, self.settings)


def identity_of(run: RunFolder, settings: TrackingSettings) -> Identity:
    """Return what a run is called in W&B: by its own `wandb.json`; without one, or with that of the original, anew."""
    path = run.wandb_identity
    if not path.exists():
        return Identity.create(run, settings)
    stored = Identity.load(path)
    if stored.folder and original_is_elsewhere(run.path, path.name, stored.folder):
        log.warning("a copy of %s: its rows go to a W&B run of its own, in the same group", stored.folder)
        return replace(Identity.create(run, settings), group=stored.group)
    return replace(stored, folder=str(run.path.resolve()))
