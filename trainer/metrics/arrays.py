"""Check arrays of features, and read them in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.metrics.base import Features, Float64Array

ROWS_PER_PIECE = 1536  # distances of two pieces take 19 MB, and everything that is held at once about 200 MB


def check_rows(rows: npt.NDArray[Any] | None, what: str, least: int = 2) -> Features:
    """Return the array if it can be measured.

    Raises:
        ValueError: it is not (n, d) with n ≥ `least` and d ≥ 1, or not finite.
    """
    if rows is None:
        raise ValueError(f"{what} are missing")
    rows = np.asarray(rows)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"{what} must be an array (n, d), but have the shape {rows.shape}")
    if len(rows) < least:
        raise ValueError(f"{what} have {len(rows)} rows, and at least {least} are needed")
    # In pieces: np.isfinite of all rows at once would take as much memory as the rows.
    if not all(np.isfinite(piece).all() for piece in float64_pieces(rows)):
        raise ValueError(f"{what} hold NaN or infinite values")
    return rows


def check_pair(
    real: npt.NDArray[Any] | None, fake: npt.NDArray[Any] | None, least: int = 2
) -> tuple[Features, Features]:
    """Return the two arrays if they can be compared.

    Raises:
        ValueError: one cannot be measured, or they differ in d.
    """
    real, fake = (
        check_rows(real, "the features of the reals", least),
        check_rows(fake, "the features of the fakes", least),
    )
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"reals have {real.shape[1]} features and fakes {fake.shape[1]}: the extractors differ")
    return real, fake


def float64_pieces(rows: Features) -> Iterator[Float64Array]:
    """Yield the rows in pieces, as float64 copies that may be written to."""
    for span in row_spans(len(rows)):
        yield rows[span].astype(np.float64)


def row_spans(count: int, size: int = 0) -> Iterator[slice]:
    """Yield the slices of `count` rows that are the pieces; `size` rows each, 0: ROWS_PER_PIECE."""
    step = size or ROWS_PER_PIECE
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
