"""TensorBoard's event files of one segment: what they hold, and adding the rows that they lack, each once.

A row is one record of a file, so a kill leaves it whole or not there. Each process writes a file of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainer.runs.journal import Row
from trainer.tracking.evaluation_rows import AXIS

SEEN = "images_seen"


class EventFiles:
    """The event files in a folder, which TensorBoard shows as one run.

    Args:
        folder: of the segment.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.last, self.evaluations = -1, set[tuple[float, str]]()
        for path in folder.glob("events.out.tfevents.*"):
            for event in LegacyEventFileLoader(str(path)).Load():
                self.note(event)
        self.writer = EventFileWriter(str(folder), flush_secs=5)

    def note(self, event: Any) -> None:
        """Take in what a record says that is written."""
        for value in event.summary.value:
            if value.tag == SEEN:
                self.last = max(self.last, event.step)
            elif value.tag.startswith("evaluation/") and value.tag != AXIS:
                self.evaluations.add((event.step, value.tag))

    def add_row(self, row: Row, time_s: float | None, pictures: Mapping[str, Path]) -> None:
        """Write a row, unless it is there.

        Args:
            row: columns; those that are no numbers are left out.
            time_s: when it was made (UNIX time).
            pictures: PNGs, by their names.
        """
        if row[SEEN] > self.last:
            values = [*numbers(row), *(picture for item in pictures.items() if (picture := image(*item)))]
            self.write(row[SEEN], values, time_s)
            self.last = row[SEEN]

    def add_evaluation(self, columns: Row) -> None:
        """Write an evaluation at its own images, unless it is there."""
        step = int(columns[AXIS])
        values = [value for value in numbers(columns) if value.tag != AXIS]
        if any((step, value.tag) not in self.evaluations for value in values):
            self.write(step, values, None)
            self.evaluations |= {(step, value.tag) for value in values}

    def write(self, step: int, values: list[Any], time_s: float | None) -> None:
        """Write one record."""
        moment = time.time() if time_s is None else time_s  # without one, a record would be of the year 1970
        self.writer.add_event(Event(step=step, wall_time=moment, summary=Summary(value=values)))

    def flush(self) -> None:
        """Have what was written on the disk."""
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


def numbers(row: Row) -> list[Any]:
    """Return the numbers of a row as TensorBoard has them."""
    return [
        Summary.Value(tag=name, simple_value=float(value))
        for name, value in row.items()
        if isinstance(value, int | float)
    ]


def image(name: str, path: Path) -> Any | None:
    """Return a PNG as TensorBoard has it; None: it is not there, or no picture."""
    try:
        content = path.read_bytes()
        with Image.open(path) as picture:
            width, height, channels = *picture.size, len(picture.getbands())
    except OSError:
        return None
    encoded = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=content)
    return Summary.Value(tag=name, image=encoded)
