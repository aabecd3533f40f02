"""Precision, recall, density and coverage: whose pictures lie among the neighbours of whose.

Precision and recall: Kynkäänniemi et al. 2019, arXiv:1904.06991, equation 2; density and coverage: Naeem et al. 2020,
arXiv:2002.09797, equations 3 and 4. A ball around a picture reaches to its k-th nearest neighbour on its own side,
itself not counted, and holds what is strictly nearer (<), as in the authors' package prdc; Kynkäänniemi et al. have ≤.

- precision: the share of fakes in the ball of any real;
- recall: the share of reals in the ball of any fake;
- density: how many balls of reals hold a fake, over k, on average; 1 is expected of a perfect generator;
- coverage: the share of reals with a fake in their ball.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from trainer.metrics.arrays import checked_pair, spans
from trainer.metrics.base import Doubles, Estimate, Features, Metric, Places, Sample
from trainer.metrics.intervals import BY_BLOCKS, Variance, block_number, blocks
from trainer.metrics.neighbours import Squares, direct_at, search

K = 5
SPARE = 10  # neighbours known beyond k, for when a block is left out
FIGURES = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Balls:
    """Around each row, reaching to its k-th nearest neighbour, for all rows and without each of the blocks.

    Args:
        block: (n,) of each row.
        squares: (1 + blocks, n) squared radii; the first for all rows.
    """

    block: Places
    squares: Doubles

    @classmethod
    def of(cls, rows: Features, k: int, number: int) -> Balls:
        """Measure those of (n, d) rows in random order, cut into `number` blocks; 0: nothing is left out."""
        block = np.zeros(len(rows), np.int64)
        for i, span in enumerate(blocks(len(rows), number) if number else []):
            block[span] = i
        known = min(k + SPARE if number else k, len(rows) - 1)
        squares, places = search(rows, rows, max(k, known), itself=True)
        radii = [squares[:, k - 1]]
        for left_out in range(number):
            there = np.cumsum(block[places] != left_out, axis=1) >= k
            radii.append(squares[np.arange(len(rows)), np.where(there[:, -1], there.argmax(1), -1)])
        return cls(block, np.stack(radii))


class Counts:
    """Which rows lie in whose balls, counted over pieces of all pairs."""

    def __init__(self, real: Balls, fake: Balls) -> None:
        self.real, self.fake = real, fake
        shape = (len(real.squares), len(real.block)), (len(fake.squares), len(fake.block))
        self.covered, self.recalled, self.precise = (np.zeros(s, np.bool_) for s in (shape[0], shape[0], shape[1]))
        self.held = np.zeros(len(real.squares))

    def add(self, reals: Places, fakes: Places, squares: Doubles) -> None:
        """Count pairs of a real and a fake at these squared distances."""
        for i in range(len(self.held)):
            kept = (self.real.block[reals] != i - 1) & (self.fake.block[fakes] != i - 1) if i else np.True_
            inside = kept & (squares < self.real.squares[i, reals])
            self.covered[i, reals[inside]] = True
            self.precise[i, fakes[inside]] = True
            self.held[i] += np.count_nonzero(inside)
            self.recalled[i, reals[kept & (squares < self.fake.squares[i, fakes])]] = True

    def figures(self, k: int) -> list[dict[str, float]]:
        """Return the figures, of all rows and then without each of the blocks."""
        found = []
        for i in range(len(self.held)):
            reals, fakes = (np.count_nonzero(b.block != i - 1) if i else len(b.block) for b in (self.real, self.fake))
            precision, recall = self.precise[i].sum() / fakes, self.recalled[i].sum() / reals
            density, coverage = self.held[i] / (k * fakes), self.covered[i].sum() / reals
            found.append(dict(zip(FIGURES, map(float, (precision, recall, density, coverage)), strict=True)))
        return found


def count(real: Features, fake: Features, k: int, number: int) -> list[dict[str, float]]:
    """Return the figures of all rows, and without each of `number` blocks of both sides.

    Raises:
        ValueError: there are too few rows.
    """
    balls = Balls.of(real, k, number), Balls.of(fake, k, number)
    counts, squares = Counts(*balls), Squares(real, fake)
    reach = [ball.squares.max(0) for ball in balls]
    for of_real in spans(len(real)):
        for of_fake, found in squares(of_real):
            within = found <= np.maximum(reach[0][of_real, None], reach[1][None, of_fake]) + squares.error
            reals, fakes = np.nonzero(within)
            distances = found[reals, fakes]
            reals, fakes = reals + of_real.start, fakes + of_fake.start
            doubtful = near(distances, balls[0].squares[:, reals], balls[1].squares[:, fakes], squares.error)
            distances[doubtful] = direct_at(real, fake, reals[doubtful], fakes[doubtful])
            counts.add(reals, fakes, distances)
    return counts.figures(k)


def near(values: Doubles, real: Doubles, fake: Doubles, error: float) -> npt.NDArray[np.bool_]:
    """Tell which of n values are so near to one of their bounds, (b, n), that they must be known exactly."""
    found: npt.NDArray[np.bool_] = np.any(abs(real - values) <= error, 0) | np.any(abs(fake - values) <= error, 0)
    return found


def prdc(real: Features, fake: Features, k: int = K) -> dict[str, float]:
    """Return precision, recall, density and coverage.

    Comparisons are those of the direct formula in float64, and results do not depend on pieces or order. Memory is
    bounded; time grows with (n² + m² + n m) d. Equal samples without doubles have precision, recall, density and
    coverage 1; a row that is there more than k times has an empty ball.

    Args:
        real, fake: (n, d) and (m, d), more than k rows each.
        k: which neighbour a ball reaches to.

    Raises:
        ValueError: they cannot be compared.
    """
    return count(*checked_pair(real, fake, least=k + 1), k, 0)[0]


def measure(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure the four figures of features."""
    features = checked_pair(real.features, fake.features, least=2 * K + 2)
    least = min(map(len, features))
    number = block_number(least)
    values, *replicas = count(*features, K, number)
    method = BY_BLOCKS.format(number)
    variances = {name: Variance.jackknife([replica[name] for replica in replicas]) for name in FIGURES}
    shares = {
        name: variances[name].of_share(values[name], least).around(values[name], least, method).within(0, 1)
        for name in ("precision", "recall", "coverage")
    }
    return shares | {"density": variances["density"].around(values["density"], least, method).within(0)}


Direction = Literal["higher", "data"]
BETTER: dict[str, Direction] = {"precision": "higher", "recall": "higher", "density": "data", "coverage": "higher"}

PRDC = Metric(
    "prdc",
    frozenset({"features"}),
    BETTER,
    "precision, recall, density, coverage, k = 5, < (Naeem et al. 2020, arXiv:2002.09797)",
    measure,
)
