"""Balls around rows that reach to their k-th nearest neighbour, and which rows lie in them: for all rows, and for the
jackknife without each of some blocks.

A ball that loses a neighbour only grows. So a row that lies in a ball with all rows present lies in it whatever block
is left out, and such pairs are only counted by block. The few other pairs are examined for each block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.metrics.arrays import row_spans
from trainer.metrics.base import Features, Float64Array, Indices
from trainer.metrics.intervals import block_slices
from trainer.metrics.neighbours import direct_distances_at, nearest_rows

SPARE_NEIGHBOURS = 10  # found beyond k, because a block that is left out may hold some of the first k
PAIRS_PER_PIECE = 2**18  # with 20 blocks, comparing so many pairs takes 50 MB

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Balls:
    """The balls around n rows, which are in random order and cut into blocks.

    Args:
        rows: (n, d).
        k: balls reach to the k-th neighbour.
        number: of blocks that are left out in turn; 0: nothing is.
        block: (n,) of each row, from 0.
        squares: (1 + number, n) squared radii, the first for all rows. What is strictly nearer is inside.
    """

    rows: Features
    k: int
    number: int
    block: Indices
    squares: Float64Array

    @classmethod
    def of(cls, rows: Features, k: int, number: int, closed: bool = False) -> Balls:
        """Return the balls of (n, d) rows; closed ones include their surface.

        Raises:
            ValueError: there are not more than k rows.
        """
        block = np.zeros(len(rows), np.int64)
        for i, span in enumerate(block_slices(len(rows), number) if number else []):
            block[span] = i
        # If blocks hold more than SPARE_NEIGHBOURS of them, the last known neighbour is used below.
        known = min(k + SPARE_NEIGHBOURS if number else k, len(rows) - 1)
        squares, places = nearest_rows(rows, rows, max(k, known), itself=True)
        radii = [squares[:, k - 1]]
        for left_out in range(number):
            there = np.cumsum(block[places] != left_out, axis=1) >= k
            radii.append(squares[np.arange(len(rows)), np.where(there[:, -1], there.argmax(1), -1)])
        found = np.stack(radii)
        return cls(rows, k, number, block, np.nextafter(found, np.inf) if closed else found)

    def left(self, replica: int) -> Mask:
        """Return which rows are present, (n,), when block `replica` - 1 is left out; 0: none is left out."""
        return np.asarray(self.block != replica - 1) if replica else np.ones(len(self.block), np.bool_)


class BallMembership:
    """Counts of which rows lie in which balls, added up over pieces of all pairs.

    Args:
        balls: around n rows.
        others: around the m rows that are looked for in them; blocks of both sides are left out together.
        error: bound of the rounding error of the distances; closer calls are computed exactly.
    """

    def __init__(self, balls: Balls, others: Balls, error: float) -> None:
        self.balls, self.others, self.error = balls, others, error
        n, m, number = len(balls.rows), len(others.rows), max(1, balls.number)
        self.of_ball = np.zeros((n, number), np.int64)  # rows of each block that it holds whatever is left out
        self.of_row = np.zeros((m, number), np.int64)  # balls of each block that hold it whatever is left out
        self.grown_ball, self.grown_row = (np.zeros((1 + balls.number, count), np.bool_) for count in (n, m))
        self.grown_pairs = np.zeros(1 + balls.number, np.int64)

    def add(self, squares: Float64Array, balls: slice, others: slice) -> None:
        """Count the pairs of some balls and some rows at these squared distances, (balls, others)."""
        least, most = self.balls.squares[0, balls, None], self.balls.squares[:, balls].max(0)[:, None]
        for part in row_spans(squares.shape[1], max(1, PAIRS_PER_PIECE // len(squares))):
            found, start = squares[:, part], others.start + part.start
            always = found < least - self.error
            maybe = (found <= most + self.error) & ~always
            rows, columns = np.nonzero(always)
            self.add_always(rows, columns, balls, slice(start, others.start + part.stop))
            rows, columns = np.nonzero(maybe)
            self.add_each(rows + balls.start, columns + start, found[rows, columns])

    def add_always(self, rows: Indices, columns: Indices, balls: slice, others: slice) -> None:
        """Count pairs that are inside whatever block is left out, by their indices in these slices."""
        number = self.of_ball.shape[1]
        of_ball = rows * number + self.others.block[others][columns]
        of_row = columns * number + self.balls.block[balls][rows]
        for total, keys in ((self.of_ball[balls], of_ball), (self.of_row[others], of_row)):
            total += np.bincount(keys, minlength=total.size).reshape(total.shape)

    def add_each(self, rows: Indices, columns: Indices, squares: Float64Array) -> None:
        """Count other pairs, by their indices, for each block that is left out."""
        radii = self.balls.squares[:, rows]
        # Within the rounding error of a radius, only the direct formula can tell inside from outside.
        doubtful = np.any(abs(radii - squares) <= self.error, axis=0)
        squares[doubtful] = direct_distances_at(self.balls.rows, self.others.rows, rows[doubtful], columns[doubtful])
        for i, radius in enumerate(radii):
            inside = (squares < radius) & self.balls.left(i)[rows] & self.others.left(i)[columns]
            self.grown_ball[i, rows[inside]] = True
            self.grown_row[i, columns[inside]] = True
            self.grown_pairs[i] += np.count_nonzero(inside)

    def figures(self, replica: int) -> tuple[float, float, float]:
        """Return coverage (share of balls with a row), precision (share of rows in a ball), density (balls/row/k)."""
        balls, rows = self.balls.left(replica), self.others.left(replica)
        of_ball, of_row = (sum_without(counts, replica) for counts in (self.of_ball, self.of_row))
        covered = (self.grown_ball[replica] | (of_ball > 0)) & balls
        inside = (self.grown_row[replica] | (of_row > 0)) & rows
        pairs = int(self.grown_pairs[replica] + of_ball[balls].sum())
        coverage, precision = covered.sum() / balls.sum(), inside.sum() / rows.sum()
        return float(coverage), float(precision), float(pairs / (self.balls.k * rows.sum()))


def sum_without(counts: Indices, replica: int) -> Indices:
    """Return the sums of counts over blocks, without the block that is left out."""
    total = counts.sum(1)
    return np.asarray(total - counts[:, replica - 1] if replica else total)
