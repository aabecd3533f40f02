"""Nearest neighbours in bounded memory, as exact as the formula Σ (x - y)² in float64.

All pairs are first compared by |x|² + |y|² - 2 x·y, which is fast but loses digits to cancellation. Its error is
bounded, so the few pairs for which the error matters are computed again by the direct formula. The results depend
neither on the size of the pieces nor on the BLAS.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainer.metrics.arrays import ROWS_PER_PIECE, check_pair, float64_pieces, row_spans
from trainer.metrics.base import Features, Float64Array, Indices

SPARE_CANDIDATES = 8  # candidates beyond k
PAIRS = 2**22  # features of each side at a time in the direct formula


def direct_distances(x: Features, y: Features) -> Float64Array:
    """Return Σ (x - y)² for each of n pairs of rows, (n, d) and (n, d)."""
    found = [
        np.square(x[span].astype(np.float64) - y[span]).sum(1)
        for span in row_spans(len(x), max(1, PAIRS // x.shape[1]))
    ]
    return np.concatenate(found) if found else np.zeros(0)


def direct_distances_at(x: Features, y: Features, rows: Indices, columns: Indices) -> Float64Array:
    """Return Σ (x - y)² between rows of x and rows of y, by their numbers."""
    found = np.zeros(len(rows))
    for span in row_spans(len(rows), max(1, PAIRS // x.shape[1])):
        found[span] = direct_distances(x[rows[span]], y[columns[span]])
    return found


class SquaredDistances:
    """Squared distances between all rows of two sets, piece by piece, and a bound of their error.

    Args:
        x, y: (n, d) and (m, d).
    """

    def __init__(self, x: Features, y: Features) -> None:
        self.x, self.y = x, y
        # Centred rows are shorter, and the rounding error grows with the square of their length.
        self.centre = y[:ROWS_PER_PIECE].mean(0, dtype=np.float64)
        norms = [np.square(piece - self.centre).sum(1) for rows in (x, y) for piece in float64_pieces(rows)]
        reach, away = max(norm.max() for norm in norms) ** 0.5, np.linalg.norm(self.centre)
        # Higham 2002, §3.1, for the products; the centring rounds as well.
        self.error = float(np.finfo(np.float64).eps * 8 * (x.shape[1] + 8) * reach * (reach + away))

    def __call__(self, of_x: slice) -> Iterator[tuple[slice, Float64Array]]:
        """Yield the distances of rows of x to the rows of y, one piece after the other."""
        here = self.x[of_x] - self.centre
        square = np.square(here).sum(1)
        for there, piece in zip(row_spans(len(self.y)), float64_pieces(self.y), strict=True):
            piece -= self.centre  # in place: pieces are copies
            found = here @ piece.T
            found *= -2
            found += square[:, None]
            found += np.square(piece).sum(1)
            yield there, found


def nearest(queries: Features, reference: Features, k: int) -> tuple[Float64Array, Indices]:
    """Return the distances to the k nearest rows, from near to far, and their indices: (n, k) each.

    Rows at the same distance are in the order of their indices.

    Args:
        queries: (n, d).
        reference: (m, d), m ≥ k.
        k: at least 1.

    Raises:
        ValueError: there are too few rows, or the shapes differ.
    """
    reference, queries = check_pair(reference, queries, least=1)
    squares, places = nearest_rows(queries, reference, k, itself=False)
    return np.sqrt(squares), places


def nearest_rows(queries: Features, reference: Features, k: int, itself: bool) -> tuple[Float64Array, Indices]:
    """Return the squared distances and indices of the k nearest rows: (n, k) each.

    Args:
        queries: (n, d).
        reference: (m, d).
        k: at most m, or m - 1 with `itself`.
        itself: both sets are the same, and no row is its own neighbour.

    Raises:
        ValueError: there are too few rows.
    """
    least = k + itself
    if not k >= 1 or len(reference) < least:
        raise ValueError(f"{k} neighbours need at least {least} rows to look among, and there are {len(reference)}")
    squares = SquaredDistances(queries, reference)
    values, places = np.zeros((len(queries), k)), np.zeros((len(queries), k), np.int64)
    for span in row_spans(len(queries)):
        bound, candidates = closest(squares, span, min(k + SPARE_CANDIDATES, len(reference) - itself), itself)
        rows = np.repeat(np.arange(span.start, span.stop), candidates.shape[1])
        exact = direct_distances_at(queries, reference, rows, candidates.ravel()).reshape(candidates.shape)
        # By distance, and by index where distances are equal.
        order = np.lexsort((candidates, exact), axis=-1)[:, :k]
        values[span], places[span] = (np.take_along_axis(a, order, 1) for a in (exact, candidates))
        if candidates.shape[1] < len(reference) - itself:  # rounding may have hidden a neighbour among the other rows
            doubtful = np.nonzero(values[span][:, -1] >= bound - squares.error)[0] + span.start
            values[doubtful], places[doubtful] = search_directly(queries, reference, k, doubtful, itself)
    return values, places


def closest(squares: SquaredDistances, span: slice, number: int, itself: bool) -> tuple[Float64Array, Indices]:
    """Return the largest computed distance among the `number` nearest rows, (n,), and their indices, (n, number)."""
    count = span.stop - span.start
    best, places = np.full((count, number), np.inf), np.zeros((count, number), np.int64)
    for there, found in squares(span):
        if itself:
            own = np.arange(max(span.start, there.start), min(span.stop, there.stop))
            found[own - span.start, own - there.start] = np.inf  # no row is its own neighbour
        both = np.concatenate([best, found], axis=1)
        kept = np.argpartition(both, number - 1, axis=1)[:, :number]
        best = np.take_along_axis(both, kept, 1)
        old = np.take_along_axis(places, np.minimum(kept, number - 1), 1)
        # What was kept from earlier pieces comes first, in front of this piece.
        places = np.where(kept < number, old, kept - number + there.start)
    return best.max(1), places


def search_directly(
    queries: Features, reference: Features, k: int, rows: Indices, itself: bool
) -> tuple[Float64Array, Indices]:
    """Search by the direct formula alone for some rows of the queries; each distinct query is computed once."""
    values, places = np.zeros((len(rows), k)), np.zeros((len(rows), k), np.int64)
    different, which = np.unique(queries[rows], axis=0, return_inverse=True)
    for number, query in enumerate(different):
        exact = np.concatenate([np.square(piece - query).sum(1) for piece in float64_pieces(reference)])
        order = np.argsort(exact, kind="stable")[: k + itself]
        for i in np.nonzero(which == number)[0]:
            # Without itself; where it does not appear, all that do are equal to it.
            others = order[order != rows[i]][:k] if itself else order
            values[i], places[i] = exact[others], others
    return values, places
