"""The header of a .npy file, which says what array follows. The file may be anybody's."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np


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
