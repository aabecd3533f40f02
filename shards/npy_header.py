"""The header of a .npy file, which says what array follows. The file may be anybody's.

NumPy's format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np

UTF8 = (3, 0)  # the version of the format whose header is UTF-8; the others have Latin-1
ALIGNMENT = 64  # bytes


def npy_header(row: np.dtype[Any], count: int) -> bytes:
    """Return the header of a file with so many rows."""
    header = {"descr": np.lib.format.dtype_to_descr(row), "fortran_order": False, "shape": (count,)}
    buffer = io.BytesIO()
    try:
        np.lib.format.write_array_header_1_0(buffer, header)
    except UnicodeEncodeError:  # fields with other letters than Latin-1, which NumPy has no public function for
        text = repr(header).encode("utf-8")
        begin = np.lib.format.magic(*UTF8)
        padded = -(-(len(begin) + 4 + len(text) + 1) // ALIGNMENT) * ALIGNMENT - len(begin) - 4
        return begin + padded.to_bytes(4, "little") + text.ljust(padded - 1) + b"\n"
    return buffer.getvalue()


def read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of the values that follow the header, where the file is left.

    `np.load` allocates whatever memory a header asks for, so the header is read first, and compared.

    Raises:
        ValueError: there is no such header.
    """
    try:
        version = np.lib.format.read_magic(file)
        # The third version has other letters in the names of fields alone.
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # hostile bytes raise anything: of tokenize, of the parser
        raise ValueError(f"its header is none of an array: {str(error).partition(chr(10))[0]}") from error
    return shape, dtype
