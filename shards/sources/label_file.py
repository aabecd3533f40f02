"""Find the table of labels that --labels names: a file, or one inside the source, such as dataset.json in a zip."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from shards.dataset.index import DataError
from shards.sources.archive import archive_kind
from shards.sources.parquet_source import parquet_files
from shards.sources.tar_headers import TAR_ERRORS, TarHeader
from shards.sources.zip_source import READ_ERRORS
from shards.storage.place import Place, Url, parse_place
from shards.storage.storage import open_storage

NO_FILE = "--labels must be none, folders or a table (CSV or dataset.json), but got {!r}, and there is no such file{}"


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file."""
    with path.open("rb") as file:
        yield file


@contextmanager
def open_object(url: Url) -> Iterator[BinaryIO]:
    """Open an object, in memory.

    Raises:
        StorageError: it cannot be read.
    """
    yield io.BytesIO(open_storage(url.parent).read(url.name))


@contextmanager
def open_member(archive: Path, name: str, max_bytes: int) -> Iterator[BinaryIO]:
    """Open a member of a zip or tar, in memory.

    Raises:
        DataError: there is none, it cannot be read, or it is longer than `max_bytes`.
    """
    read = read_zip_member if archive_kind(archive) == "zip" else read_tar_member
    try:
        data = read(archive, name, max_bytes + 1)
    except KeyError:
        raise DataError(NO_FILE.format(name, f", neither here nor in {archive}")) from None
    except (RuntimeError, *TAR_ERRORS, *READ_ERRORS) as error:
        raise DataError(f"{archive / name}, the labels, cannot be read: {error}") from error
    if len(data) > max_bytes:
        raise DataError(f"{archive / name}, the labels, is longer than --max-bytes {max_bytes}: give a higher one")
    yield io.BytesIO(data)


def read_zip_member(archive: Path, name: str, most: int) -> bytes:
    """Return at most so many bytes of a member.

    Raises:
        KeyError: there is none of this name.
    """
    with zipfile.ZipFile(archive) as content, content.open(name) as member:
        return member.read(most)


def read_tar_member(archive: Path, name: str, most: int) -> bytes:
    """Return at most so many bytes of a member.

    Raises:
        KeyError: there is no file of this name.
    """
    with tarfile.open(archive, "r:", tarinfo=TarHeader) as content:
        for member in content:
            if member.isfile() and member.name.removeprefix("./") == name:
                return cast(BinaryIO, content.extractfile(member)).read(most)
    raise KeyError(name)


def source_with_table(labels: str, sources: Mapping[str, Place]) -> Place:
    """Return the source to look for a table in: of several the one that has a file of this name, else any.

    Raises:
        DataError: several sources have one.
    """
    names = sorted(sources)
    if len(names) > 1 and not (isinstance(parse_place(labels), Url) or Path(labels).is_file()):
        having = [name for name in names if has_file(sources[name], labels)]
        if len(having) > 1:
            raise DataError(
                f"--labels {labels} is in several sources, such as {having[0]} and {having[1]}: make one table of "
                f"them, with the name of the source before each path, as in {having[0]}/PATH, and give that"
            )
        names = having or names
    return sources[names[0]]


def has_file(source: Place, name: str) -> bool:
    """Return whether a source has a file of this name.

    Raises:
        DataError: the source is damaged.
    """
    if isinstance(source, Url):
        return open_storage(source).exists(name)
    if source.is_dir() or parquet_files(source):
        return (source / name).is_file()
    try:
        if archive_kind(source) == "zip":
            with zipfile.ZipFile(source) as content:
                return name in content.namelist()
        with tarfile.open(source, "r:", tarinfo=TarHeader) as archive:
            return any(member.name.removeprefix("./") == name for member in archive)
    except (*TAR_ERRORS, *READ_ERRORS) as error:
        raise DataError(f"{source} is damaged ({error}): get it again") from error


def find_label_file(
    labels: str, source: Place, max_bytes: int
) -> tuple[Place, Callable[[], AbstractContextManager[BinaryIO]]]:
    """Return the path of the table, for messages, and a function that opens it.

    Args:
        labels: as it was typed.
        source: of the pictures; looked into where there is no file of this name.
        max_bytes: the longest member of an archive that is read.

    Raises:
        DataError: there is no such file.
    """
    named = parse_place(labels)
    if isinstance(named, Url):
        return named, partial(open_object, named)
    if Path(labels).is_file():
        return Path(labels), partial(open_file, Path(labels))
    if isinstance(source, Url):
        if open_storage(source).exists(labels):
            return source / labels, partial(open_object, source / labels)
        raise DataError(NO_FILE.format(labels, f", neither here nor in {source}"))
    if (source / labels).is_file():
        return source / labels, partial(open_file, source / labels)
    if source.is_file():
        return source / labels, partial(open_member, source, labels, max_bytes)
    raise DataError(NO_FILE.format(labels, ""))
