"""Append-only files of JSON lines that survive kills, torn writes and full disks."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Any

from shards.atomic_files import write_atomically
from trainer.core.migration import upgrade_values, with_schema

log = logging.getLogger(__name__)

Row = dict[str, Any]

# JSON has no such numbers; W&B and JavaScript write them by these names, and Python's float() reads them.
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Journal:
    """One file of JSON lines with a single writer. Lines are durable after `sync()`.

    A full disk stops nothing: what could not be written waits in memory, in order and to the byte, for the next append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()  # a checkpoint's thread syncs while the loop appends
        self._file: int | None = None
        self._unwritten = b""
        self._warned = False

    def append(self, row: Mapping[str, object]) -> None:
        """Add one line. Never raises because of the disk."""
        with self._lock:
            # Encoded now: the row may change before the disk takes it.
            self._unwritten += encode_row(row)
            try:
                self._write()
                self._warned = False
            except OSError as error:
                if not self._warned:
                    log.warning("%s: %s; its rows wait in memory", self.path, error.strerror)
                self._warned = True

    def sync(self) -> None:
        """Make every appended line durable, or raise OSError."""
        with self._lock:
            self._write()
            if self._file is not None:
                os.fsync(self._file)

    def cut(self, images_seen: int) -> None:
        """Drop the rows beyond `images_seen`, atomically: readers see the old file or the new one."""
        with self._lock:
            self._write()
            self._close()
            lines = list(whole_lines(self.path))
            kept = [line for line in lines if (row := decode_row(line)) and row["images_seen"] <= images_seen]
            # After an orderly stop nothing lies beyond the checkpoint: the file stays, and its followers keep it.
            if kept != lines:
                write_atomically(self.path, b"".join(kept))

    def close(self) -> None:
        """Close the file; what the disk did not take is lost."""
        with self._lock:
            self._close()

    def _write(self) -> None:
        """Write what waits. A short write leaves the rest waiting, so the bytes stay in order."""
        while self._unwritten:
            if self._file is None:
                self._file = open_whole(self.path)
            self._unwritten = self._unwritten[os.write(self._file, self._unwritten) :]

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Follower:
    """Reads a journal that another process is writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._torn = b""

    def read(self) -> list[Row]:
        """The whole rows added since the last call."""
        if self._file is None:
            try:
                self._file = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:
                return []
        data = self._torn
        while block := os.read(self._file, 1 << 20):
            data += block
        # What follows the last newline is a line that is still being written.
        *lines, self._torn = data.split(b"\n")
        return [upgrade_values(self.path.name, row, str(self.path)) for line in lines if (row := decode_row(line))]

    def replaced(self) -> bool:
        """Whether the path now holds another file than the one being read, that is, whether the journal was cut."""
        # `cut` puts a new file in its place; the old one can be read as long as it is open.
        return self._file is not None and os.fstat(self._file).st_ino != os.stat(self.path).st_ino

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a journal; none if there is no file. A torn last line is no row."""
    return (upgrade_values(path.name, row, str(path)) for line in whole_lines(path) if (row := decode_row(line)))


def last_row(path: Path) -> Row:
    """The last row of a journal; empty if there is none. Only that one is decoded."""
    # Read through once; only the last line is kept.
    lines = deque(whole_lines(path), maxlen=1)
    return upgrade_values(path.name, decode_row(lines[0]), str(path)) if lines else {}


def encode_row(row: Mapping[str, object]) -> bytes:
    """One JSON line; floats round-trip, and those that JSON lacks become their names."""
    return json.dumps(name_non_finite(row), allow_nan=False).encode() + b"\n"


def name_non_finite(row: Mapping[str, object]) -> dict[str, object]:
    """The same row, and what is nested in it, with the names of numbers that JSON lacks."""
    return {
        key: number_or_name(value)
        if isinstance(value, float)
        else name_non_finite(value)
        if isinstance(value, Mapping)
        else value
        for key, value in row.items()
    }


def decode_row(line: bytes) -> Row:
    """The row of a line; empty if the line is no row, as a crash of the whole machine may leave it."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(row, dict):
        return {}
    return {key: NON_FINITE.get(value, value) if isinstance(value, str) else value for key, value in row.items()}


def number_or_name(value: float) -> float | str:
    """A finite number itself, another one's name."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines that end in a newline."""
    if path.exists():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def open_whole(path: Path) -> int:
    """Open for appending, after dropping a last line that a kill has torn."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        # Else the torn line and the next row would be one line, and no row.
        os.ftruncate(file, data.rfind(b"\n") + 1)
    return file


class EventKind(StrEnum):
    """What a row of `events.jsonl` tells of; on disk, `kind` holds these words."""

    START = "start"
    """An attempt began: `owner`, `images_seen`."""
    END = "end"
    """It ended: `outcome`, `signal`, `problem`."""
    REFUSED = "refused"
    STALLED = "stalled"
    """No step for too long: `places` are the silent nodes."""
    OUT_OF_MEMORY = "out of memory"
    """Of a device or a host; the rank that it happened to writes it."""
    ENVIRONMENT = "environment"
    """What the bits depend on: hardware and versions."""
    INITIALISED = "initialised"
    """With the weights of another run."""
    SEGMENT = "segment"
    """A new W&B run begins."""
    CHECKPOINT = "checkpoint"
    CHECKPOINT_FAILED = "checkpoint failed"
    DAMAGED_CHECKPOINT = "damaged checkpoint"
    DAMAGED_SAMPLE = "damaged sample"
    COLLAPSE_ALARM = "collapse alarm"
    ROLLBACK = "rollback"
    EVALUATION = "evaluation"
    EVALUATION_SKIPPED = "evaluation skipped"
    EVALUATION_FAILED = "evaluation failed"
    BROKEN = "broken"
    """A process of a study on this machine failed before it could say so itself."""


def event_row(kind: EventKind, **fields: object) -> dict[str, object]:
    """Return a row of a journal of events."""
    return with_schema({"time": now(), "kind": kind, **fields})


def now() -> str:
    """Return the time as the journals write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
