"""Precision, recall, density and coverage: which images lie among the nearest neighbours of the other side.

Precision and recall: Kynkäänniemi et al. 2019, arXiv:1904.06991, equation 2; density and coverage: Naeem et al. 2020,
arXiv:2002.09797, equations 3 and 4. A ball around a picture reaches to its k-th nearest neighbour on its own side,
itself not counted, and holds what is strictly nearer (<), as in the authors' package prdc; Kynkäänniemi et al. have ≤.

- precision: the share of fakes in the ball of any real;
- recall: the share of reals in the ball of any fake;
- density: how many balls of reals hold a fake, over k, on average; 1 is expected of a perfect generator;
- coverage: the share of reals with a fake in their ball.
"""

from __future__ import annotations

from typing import Literal

from trainer.metrics.arrays import check_pair, row_spans
from trainer.metrics.balls import BallMembership, Balls
from trainer.metrics.base import Estimate, Features, Metric, Sample
from trainer.metrics.intervals import BY_BLOCKS, Variance, block_number
from trainer.metrics.neighbours import SquaredDistances

K = 5
FIGURES = ("precision", "recall", "density", "coverage")


def count_prdc(real: Features, fake: Features, k: int, number: int, closed: bool = False) -> list[dict[str, float]]:
    """Return the figures of all rows, and without each of `number` blocks of both sides.

    Raises:
        ValueError: there are too few rows.
    """
    reals, fakes = (Balls.of(rows, k, number, closed) for rows in (real, fake))
    squares = SquaredDistances(real, fake)
    of_reals, of_fakes = BallMembership(reals, fakes, squares.error), BallMembership(fakes, reals, squares.error)
    for of_real in row_spans(len(real)):
        for of_fake, found in squares(of_real):
            of_reals.add(found, of_real, of_fake)
            # Each distance is computed once, and serves balls on both sides.
            of_fakes.add(found.T, of_fake, of_real)
    replicas = []
    for i in range(number + 1):
        (coverage, precision, density), (_, recall, _) = of_reals.figures(i), of_fakes.figures(i)
        replicas.append(dict(zip(FIGURES, (precision, recall, density, coverage), strict=True)))
    return replicas


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
    return count_prdc(*check_pair(real, fake, least=k + 1), k, 0)[0]


def measure_prdc(
    real: Sample, fake: Sample, held_out: Sample | None, k: int = K, closed: bool = False
) -> dict[str, Estimate]:
    """Measure the four figures of features.

    Args:
        real, fake: with features.
        held_out: not looked at.
        k: which neighbour a ball reaches to.
        closed: it holds its surface as well.
    """
    features = check_pair(real.features, fake.features, least=2 * k + 2)
    reals, fakes = map(len, features)
    number = block_number(reals, fakes)
    values, *replicas = count_prdc(*features, k, number, closed)
    method = BY_BLOCKS.format(number)
    variances = {name: Variance.jackknife([replica[name] for replica in replicas]) for name in FIGURES}
    shares = {
        name: variances[name].of_share(values[name], of).around(values[name], fakes, method).within(0, 1)
        for name, of in (("precision", fakes), ("recall", reals), ("coverage", reals))
    }
    return shares | {"density": variances["density"].around(values["density"], fakes, method).within(0)}


Direction = Literal["higher", "data"]
BETTER: dict[str, Direction] = {"precision": "higher", "recall": "higher", "density": "data", "coverage": "higher"}

PRDC = Metric(
    "prdc",
    frozenset({"features"}),
    BETTER,
    "precision, recall, density, coverage, k = 5, < (Naeem et al. 2020, arXiv:2002.09797)",
    measure_prdc,
)
