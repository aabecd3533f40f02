"""The text of a table: its encoding and the separator of its columns are found by what is in it."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

from shards.dataset.index import DataError

SEPARATORS = (",", ";", "\t", "|")  # tried in this order
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks
OTHER_FORMATS = {  # first bytes of files that are no text -> their format
    b"PK\x03\x04": "a spreadsheet or a zip",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\x1f\x8b": "packed with gzip",
}
JSON_STARTS = (b"{", b"[")
HEADER_BYTES = 1 << 12  # by which the format is recognized
CHUNK = 1 << 20
OLD_ENCODINGS = {"cp1252": "Windows-1252", "latin-1": "Latin-1"}  # of tables that are not in Unicode; tried in turn


def is_json(file: BinaryIO) -> bool:
    """Return whether a file looks like JSON, and not like a table."""
    start = file.read(HEADER_BYTES)
    file.seek(0)
    return start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(JSON_STARTS)


def find_encoding(file: BinaryIO, what: str) -> str:
    """Return the text encoding of a table: UTF-16 by its mark, UTF-8 if all of it is that, else an old one.

    Args:
        file: the table, at its start; it is left there.
        what: its name, for the message.

    Raises:
        DataError: it is not text.
    """
    start = file.read(HEADER_BYTES)
    file.seek(0)
    if start.startswith(UTF_16):
        return "utf-16"
    kind = next((name for magic, name in OTHER_FORMATS.items() if start.startswith(magic)), None)
    if kind or b"\0" in start:
        raise DataError(
            f"{what}, the labels, is {kind or 'no text'} and no CSV: save it as CSV (UTF-8) with the program "
            "that it is from"
        )
    # utf-8-sig takes UTF-8 with a byte order mark, as spreadsheets write it, and without one.
    return next(name for name in ("utf-8-sig", *OLD_ENCODINGS) if decodes(file, name))


def decodes(file: BinaryIO, encoding: str) -> bool:
    """Return whether all of a file is text in an encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    file.seek(0)
    try:
        while data := file.read(CHUNK):
            decoder.decode(data)
        decoder.decode(b"", final=True)
        return True
    except UnicodeDecodeError:
        return False
    finally:
        file.seek(0)


@contextmanager
def open_text(file: BinaryIO, encoding: str) -> Iterator[TextIO]:
    """Open a table as text; the file is left open."""
    text = io.TextIOWrapper(file, encoding, newline="")
    try:
        yield text
    finally:
        text.detach()


def read_header(file: TextIO, separator: str) -> list[str]:
    """Return the names of the columns if `separator` separates them."""
    file.seek(0)
    try:
        return next(csv.reader(file, delimiter=separator), [])
    except csv.Error:  # such as a quote that is never closed
        return []
