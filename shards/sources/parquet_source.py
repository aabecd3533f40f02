"""Encoded pictures in Parquet, as the Hugging Face hub has them: a column of structs with bytes and path, or of bytes.

Needs pyarrow: `pip install lienzo[parquet]`. Rows are read in their order, a few at a time, so that memory holds
a page of the column, and not row groups.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from shards.errors import DataError
from shards.exclusion import Excluded
from shards.sources.source_entry import SourceEntry, encode_name

MAGIC, SUFFIX = b"PAR1", ".parquet"
TAIL = struct.Struct("<I4s")  # length of the footer, magic
BATCH = 16  # rows that are in memory at a time
BUFFER = 1 << 20  # bytes that are read from a column at a time


def parquet_files(path: Path) -> list[Path]:
    """Return a Parquet file, or those of a folder that has nothing else; empty: it is neither."""
    if path.is_dir():
        files = []
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.name.endswith(SUFFIX):
                    return []
                files.append(Path(entry.path))
        return sorted(files)
    if not path.is_file():
        return []
    with path.open("rb") as file:
        return [path] if file.read(len(MAGIC)) == MAGIC else []


def open_parquet(path: Path) -> Any:
    """Open a Parquet file: a pyarrow.parquet.ParquetFile.

    Raises:
        DataError: pyarrow is not installed, or the file is damaged.
    """
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(f"{path} is Parquet, which pyarrow reads: pip install lienzo[parquet]") from None
    try:
        return parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
    except (OSError, ValueError) as error:  # pyarrow's own errors are such
        raise DataError(f"{path} is damaged ({error}): get it again") from error


class ParquetSource:
    """The rows of Parquet files; a name is "FILE-ROW", a place is "file:row group:row in it:hash of the footer".

    Args:
        paths: of the files.
    """

    requests = 1

    def __init__(self, paths: list[Path]) -> None:
        self.paths = [path.absolute() for path in paths]  # a link keeps its name, as in the hub's cache
        self.notes: list[str] = []
        self.cursor: Cursor | None = None

    def scan(self) -> Iterator[SourceEntry]:
        """Yield all rows, without reading a column.

        Raises:
            DataError: a file is damaged, or has no column of pictures.
        """
        for number, path in enumerate(self.paths):
            file, version = open_parquet(path), footer_hash(path)
            picture_column(path, file)
            for group, row, name in numbered_rows(path, file):
                yield SourceEntry(name, f"{number}:{group}:{row}:{version}")

    def read(self, name: bytes, place: str, max_bytes: int) -> bytes:
        """Return the picture of a row.

        Raises:
            Excluded: there is none, it is longer than `max_bytes`, or it cannot be read.
        """
        number, group, row = map(int, place.split(":")[:3])
        try:
            if self.cursor is None or not self.cursor.is_before(number, group, row):
                self.cursor = Cursor(self.paths[number], number, group)
            data = self.cursor.read(row)
        except (OSError, ValueError, DataError) as error:
            self.cursor = None
            raise Excluded("unreadable", f"row of Parquet: {error}") from error
        if data is None:
            raise Excluded("unreadable", "row of Parquet: it has no bytes of a picture")
        if len(data) > max_bytes:
            raise Excluded("too_many_bytes", f"{len(data)} bytes")
        return data

    def size_of(self, place: str) -> int:
        """Return 1: how long a row is, only reading it tells."""
        return 1


class Cursor:
    """Reads the pictures of a row group in their order.

    Args:
        path: of the file.
        number: of the file.
        group: number of the row group.
    """

    def __init__(self, path: Path, number: int, group: int) -> None:
        file = open_parquet(path)
        self.file, self.group = number, group
        column = picture_column(path, file)
        self.batches = file.iter_batches(BATCH, row_groups=[group], columns=[column], use_threads=False)
        self.first, self.pictures = 0, list[bytes | None]()

    def is_before(self, file: int, group: int, row: int) -> bool:
        """Return whether a row can still be read."""
        return (self.file, self.group) == (file, group) and self.first <= row

    def read(self, row: int) -> bytes | None:
        """Return the picture of a row; None: the cell is empty."""
        while row >= self.first + len(self.pictures):
            self.first += len(self.pictures)
            batch = next(self.batches, None)
            if batch is None:
                raise ValueError("it has fewer rows than were listed")
            cells = batch.column(0).to_pylist()
            self.pictures = [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells]
        return self.pictures[row - self.first]


def numbered_rows(path: Path, file: Any) -> Iterator[tuple[int, int, bytes]]:
    """Yield row group, row in it, and name of each row."""
    number = 0
    for group in range(file.num_row_groups):
        for row in range(file.metadata.row_group(group).num_rows):
            yield group, row, encode_name(f"{path.stem}-{number:09d}")
            number += 1


def footer_hash(path: Path) -> str:
    """Return a hash of the footer, which says where each column lies, how long it is, and what values it has."""
    with path.open("rb") as file:
        file.seek(-TAIL.size, os.SEEK_END)
        length, _ = TAIL.unpack(file.read(TAIL.size))
        file.seek(-TAIL.size - length, os.SEEK_END)
        return xxhash.xxh3_64_hexdigest(file.read(length))


def hub_features(file: Any) -> dict[str, Any]:
    """Return what the Hugging Face hub stores of the columns; empty: nothing."""
    try:
        stored = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in stored.items() if isinstance(feature, dict)}
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}


def picture_column(path: Path, file: Any) -> str:
    """Return what to read of a file: "image.bytes", or a column of bytes.

    Raises:
        DataError: there is no such column, or several may be meant.
    """
    columns = {column.name: str(column.type) for column in file.schema_arrow}
    structs = [name for name, kind in columns.items() if kind.startswith("struct<") and "bytes: " in kind]
    named = [name for name, feature in hub_features(file).items() if feature.get("_type") == "Image"]
    plain = [name for name, kind in columns.items() if kind in ("binary", "large_binary")]
    for found in ([name for name in named if name in columns], structs, plain):
        if len(found) == 1:
            return f"{found[0]}.bytes" if found[0] in structs else found[0]
        if found:
            raise DataError(f"{path} has several columns of pictures, {', '.join(map(repr, found))}: keep one of them")
    raise DataError(
        f"{path} has no column of pictures (bytes, or a struct with bytes), but {', '.join(map(repr, columns))}: "
        "make one, as the datasets library does of its feature Image()"
    )
