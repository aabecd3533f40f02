"""The speed of a run, from the rows that it logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trainer.runs.journal import Row

PAUSE_S = 1.0  # between two rows, by which the clocks of an attempt and of the world differ when another attempt began


def rows_by_attempt(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each attempt of a run."""
    stretch = list[Row]()
    for row in rows:
        if not {"images_seen", "elapsed_s", "time"} <= row.keys():
            continue
        if stretch and not of_same_attempt(stretch[-1], row):
            yield stretch
            stretch = []
        stretch.append(row)
    if stretch:
        yield stretch


def of_same_attempt(row: Row, following: Row) -> bool:
    """Tell whether no other attempt began between two rows."""
    # elapsed_s begins anew with each attempt, and the world's clock does not.
    drift_s = counted_between(row, following, "time") - counted_between(row, following, "elapsed_s")
    return abs(drift_s) <= PAUSE_S


def counted_between(row: Row, following: Row, name: str) -> float:
    """Return what has been counted between two rows."""
    return float(following[name] - row[name])


def images_per_s(rows: Iterable[Row]) -> float | None:
    """Return the speed between the first and the last row of the attempt that saw most; None: no attempt has two rows.

    What comes before an attempt's first row is slow, and is not counted.
    """
    spans = [
        (counted_between(first, last, "images_seen"), counted_between(first, last, "elapsed_s"))
        for first, *_, last in (stretch for stretch in rows_by_attempt(rows) if len(stretch) > 1)
    ]
    images, elapsed_s = max(spans, default=(0.0, 0.0))
    return images / elapsed_s if images > 0 and elapsed_s > 0 else None
