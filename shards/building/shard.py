"""Do one task: consecutive listed pictures become a tar of those to train on, and one of those that are held out.

In a build of several sizes they become two for each size: a picture is read once, and decoded once where the sizes
allow it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import xxhash

from shards.building.holdout import SPLITS, HoldOut
from shards.building.part import Deduplicate, ListedPicture, PartResult, PartWriter
from shards.exclusion import Excluded
from shards.images.decode import decode_image
from shards.images.decoding import Decoding
from shards.images.encode import ENCODINGS
from shards.images.frame import Frames
from shards.sources.source import Source
from shards.sources.source_entry import decode_name
from shards.storage.errors import StorageError
from shards.storage.read_ahead import read_ahead


@dataclass(frozen=True)
class ShardTask:
    """Consecutive pictures of the listing to store."""

    number: int
    pictures: list[ListedPicture]
    outputs: tuple[int, ...] = (0,)
    """Numbers in `ShardOptions.outputs` of the datasets that lack it."""
    trial: bool = False
    """Only find out whether the pictures can be decoded; the tars are removed."""


@dataclass(frozen=True)
class Output:
    """How the pictures of one dataset are made; of those of one build, the sizes differ."""

    decoding: Decoding
    encode: str
    holdout: HoldOut
    deduplicate: Deduplicate
    folder: Path
    """The folder of finished parts until they get their final names."""


@dataclass(frozen=True)
class ShardOptions:
    """What is the same for all tasks of a build."""

    source: Source
    max_bytes: int
    outputs: tuple[Output, ...]

    def run(self, task: ShardTask, on_picture: Callable[[int], None]) -> list[ShardResult]:
        """Write the parts of a task."""
        try:
            return write_shard(task, self, on_picture)
        except StorageError as error:
            raise OSError(str(error)) from error
        except OSError as error:
            places = " and ".join(str(self.outputs[number].folder.parent) for number in task.outputs)
            raise OSError(f"cannot write to {places}: {error.strerror or error}") from error

    def name_of(self, task: ShardTask, number: int) -> str | None:
        """Return the name of a picture; None: the task has not so many."""
        return decode_name(task.pictures[number].name) if number < len(task.pictures) else None

    def clean_up(self, task: ShardTask, pid: int) -> None:
        """Remove the unfinished parts of a process that crashed."""
        for number in task.outputs:
            for path in unfinished_paths(self.outputs[number].folder, task.number, pid):
                path.unlink(missing_ok=True)


@dataclass
class ShardResult:
    """What a task produced of one dataset."""

    parts: list[PartResult] = field(default_factory=list)
    """One for each of SPLITS."""
    excluded: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, reason and detail of each excluded picture."""


def part_path(folder: Path, split: int, number: int) -> Path:
    """Return the path of a finished part before it gets its final name, or is copied into shards."""
    return folder / f"{split}-{number:06d}.tar"


def unfinished_paths(folder: Path, task: int, pid: int) -> list[Path]:
    """Return the paths, one a split, at which a process writes a task; the pid keeps two attempts apart."""
    return [part_path(folder, split, task).with_suffix(f".{pid}") for split in range(len(SPLITS))]


class ShardWriter:
    """Writes the parts of a task in one dataset; use it in a `with` block.

    Args:
        task: its number.
        output: of the dataset.
    """

    def __init__(self, task: int, output: Output) -> None:
        self.task, self.output = task, output
        self.encoding, self.result, self.stack = ENCODINGS[output.encode], ShardResult(), ExitStack()
        paths = unfinished_paths(output.folder, task, os.getpid())
        self.writers = [PartWriter(path, self.encoding.extension, output.deduplicate) for path in paths]

    def __enter__(self) -> ShardWriter:
        for writer in self.writers:
            self.stack.enter_context(writer)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def add(self, listed: ListedPicture, content: bytes, frames: Frames) -> None:
        """Decode a picture, and write it to its side, or exclude it.

        Args:
            listed: its file.
            content: of the file.
            frames: what the other sizes have loaded of it.

        Raises:
            OSError: it cannot be written.
        """
        try:
            picture = decode_image(content, self.output.decoding, frames)
        except Excluded as error:
            self.exclude(listed, error)
            return
        image = self.encoding.encode(picture.pixels)
        side = self.output.holdout.side_of(xxhash.xxh3_64_intdigest(image))
        self.writers[side].add(listed, picture, image)

    def exclude(self, listed: ListedPicture, error: Excluded) -> None:
        """Note why a picture is not used."""
        self.result.excluded.append((decode_name(listed.name), error.reason, error.detail))

    def finish(self, trial: bool) -> ShardResult:
        """Complete the parts, durably, and return what they hold; those of a trial are removed.

        Raises:
            OSError: they cannot be written.
        """
        for split, writer in enumerate(self.writers):
            path = part_path(self.output.folder, split, self.task)
            self.result.parts.append(writer.finish(None if trial else path))
        return self.result


def write_shard(task: ShardTask, options: ShardOptions, on_picture: Callable[[int], None]) -> list[ShardResult]:
    """Write the parts of a task, durably; they get their names when all are complete. Empty ones have no file.

    Args:
        task: the pictures.
        options: of the build.
        on_picture: called with the number of finished pictures, before each picture and at the end.

    Returns:
        What it produced of each of `task.outputs`.

    Raises:
        OSError: they cannot be written.
    """
    with ExitStack() as stack:
        outputs = [options.outputs[number] for number in task.outputs]
        writers = [stack.enter_context(ShardWriter(task.number, output)) for output in outputs]
        contents = stack.enter_context(closing(read_contents(task, options)))
        for number, listed in enumerate(task.pictures):
            on_picture(number)
            add_picture(listed, contents, writers)
        on_picture(len(task.pictures))
        return [writer.finish(task.trial) for writer in writers]


def read_contents(task: ShardTask, options: ShardOptions) -> Generator[Callable[[], bytes], None, None]:
    """Yield for each picture that may be opened what returns its content, or raises; several are read ahead."""
    wanted = (listed for listed in task.pictures if not listed.known_exclusion)
    requests = (partial(options.source.read, listed.name, listed.place, options.max_bytes) for listed in wanted)
    return read_ahead(requests, options.source.requests)


def add_picture(listed: ListedPicture, contents: Iterator[Callable[[], bytes]], writers: Sequence[ShardWriter]) -> None:
    """Write a picture into each dataset, or exclude it; its content is the next one, unless it must not be opened."""
    try:
        if listed.known_exclusion:
            raise Excluded(*listed.known_exclusion)
        content = next(contents)()
    except Excluded as error:
        for writer in writers:
            writer.exclude(listed, error)
        return
    frames: Frames = {}
    for writer in writers:
        writer.add(listed, content, frames)
