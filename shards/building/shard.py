"""Do one task: consecutive listed pictures become a tar of those to train on, and one of those that are held out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import xxhash

from shards.building.holdout import SPLITS, HoldOut
from shards.building.part import Deduplicate, ListedPicture, PartResult, PartWriter
from shards.exclusion import Excluded
from shards.images.decode import Decoding, Picture, decode_image
from shards.images.encode import ENCODINGS
from shards.sources.source import Source
from shards.sources.source_entry import decode_name
from shards.storage.errors import StorageError
from shards.storage.read_ahead import read_ahead


@dataclass(frozen=True)
class ShardTask:
    """Consecutive pictures of the listing to store."""

    number: int
    pictures: list[ListedPicture]
    trial: bool = False
    """Only find out whether the pictures can be decoded; the tars are removed."""


@dataclass(frozen=True)
class ShardOptions:
    """What is the same for all tasks of a build."""

    source: Source
    decoding: Decoding
    encode: str
    max_bytes: int
    holdout: HoldOut
    deduplicate: Deduplicate
    folder: Path
    """The folder of finished parts until they get their final names."""

    def run(self, task: ShardTask, on_picture: Callable[[int], None]) -> ShardResult:
        """Write the parts of a task."""
        try:
            return write_shard(task, self, on_picture)
        except StorageError as error:
            raise OSError(str(error)) from error
        except OSError as error:
            raise OSError(f"cannot write to {self.folder.parent}: {error.strerror or error}") from error

    def name_of(self, task: ShardTask, number: int) -> str | None:
        """Return the name of a picture; None: the task has not so many."""
        return decode_name(task.pictures[number].name) if number < len(task.pictures) else None

    def clean_up(self, task: ShardTask, pid: int) -> None:
        """Remove the unfinished parts of a process that crashed."""
        for path in unfinished_paths(self.folder, task, pid):
            path.unlink(missing_ok=True)


@dataclass
class ShardResult:
    """What a task produced."""

    parts: list[PartResult] = field(default_factory=list)
    """One for each of SPLITS."""
    excluded: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, reason and detail of each excluded picture."""


def part_path(folder: Path, split: int, number: int) -> Path:
    """Return the path of a finished part before it gets its final name, or is copied into shards."""
    return folder / f"{split}-{number:06d}.tar"


def unfinished_paths(folder: Path, task: ShardTask, pid: int) -> list[Path]:
    """Return the paths, one a split, at which a process writes a task; the pid keeps two attempts apart."""
    return [part_path(folder, split, task.number).with_suffix(f".{pid}") for split in range(len(SPLITS))]


def write_shard(task: ShardTask, options: ShardOptions, on_picture: Callable[[int], None]) -> ShardResult:
    """Write the parts of a task, durably; they get their names when both are complete. Empty ones have no file.

    Args:
        task: the pictures.
        options: of the build.
        on_picture: called with the number of finished pictures, before each picture and at the end.

    Raises:
        OSError: they cannot be written.
    """
    result, encoding = ShardResult(), ENCODINGS[options.encode]
    with ExitStack() as stack:
        writers = [
            stack.enter_context(PartWriter(path, encoding.extension, options.deduplicate))
            for path in unfinished_paths(options.folder, task, os.getpid())
        ]
        for listed, picture in decode_pictures(task, options, result, on_picture):
            image = encoding.encode(picture.pixels)
            side = options.holdout.side_of(xxhash.xxh3_64_intdigest(image))
            writers[side].add(listed, picture, image)
        for split, writer in enumerate(writers):
            result.parts.append(writer.finish(None if task.trial else part_path(options.folder, split, task.number)))
    return result


def decode_pictures(
    task: ShardTask, options: ShardOptions, result: ShardResult, on_picture: Callable[[int], None]
) -> Iterator[tuple[ListedPicture, Picture]]:
    """Yield the usable pictures, and add the others to `result.excluded`."""
    read, wanted = options.source.read, (listed for listed in task.pictures if not listed.known_exclusion)
    requests = (partial(read, listed.name, listed.place, options.max_bytes) for listed in wanted)
    with closing(read_ahead(requests, options.source.requests)) as contents:
        for number, listed in enumerate(task.pictures):
            on_picture(number)
            try:
                if listed.known_exclusion:
                    raise Excluded(*listed.known_exclusion)
                picture = decode_image(next(contents)(), options.decoding)
            except Excluded as error:
                result.excluded.append((decode_name(listed.name), error.reason, error.detail))
                continue
            yield listed, picture
    on_picture(len(task.pictures))
