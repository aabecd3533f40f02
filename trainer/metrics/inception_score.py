"""Inception Score: exp E KL(p(y|x) ‖ p(y)), of the class probabilities of fakes.

Salimans et al. 2016, arXiv:1606.03498, §4, over all pictures at once: a split into ten, as in their code, adds a bias
of its own. What the classes are depends on the extractor, and so does the meaning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from trainer.metrics.arrays import check_rows
from trainer.metrics.base import Estimate, Features, Float64Array, Metric, Sample
from trainer.metrics.intervals import Variance, block_number, block_slices


def inception_score(probabilities: Features) -> float:
    """Return the score of (n, classes) probabilities: from 1 to the number of classes.

    Raises:
        ValueError: they are no probabilities.
    """
    rows = normalise_rows(probabilities, "probabilities")
    return score_from_sums(rows.sum(0), float(scipy.special.entr(rows).sum()), len(rows))


def normalise_rows(probabilities: npt.NDArray[Any] | None, what: str, least: int = 1) -> Float64Array:
    """Return probabilities in float64, each row brought to the sum 1.

    Raises:
        ValueError: they are no probabilities.
    """
    rows = check_rows(probabilities, what, least).astype(np.float64)
    totals = rows.sum(1, keepdims=True)
    # 1e-3: a softmax in half or single precision sums to 1 only nearly.
    if (rows < 0).any() or (abs(totals - 1) > 1e-3).any():
        raise ValueError(f"{what} must be at least 0 and sum to 1 in each row")
    return np.asarray(rows / totals)


def score_from_sums(total: Float64Array, entropy: float, count: int) -> float:
    """Return exp of the entropy of the mean less the mean entropy, from sums over `count` rows."""
    # Rounding may leave a sum without a block just below 0.
    return float(np.exp(scipy.special.entr(np.clip(total / count, 0, 1)).sum() - entropy / count))


def measure(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure the fakes."""
    rows = normalise_rows(fake.probabilities, "the probabilities of the fakes", least=4)
    number = block_number(len(rows))
    total, entropies = rows.sum(0), scipy.special.entr(rows).sum(1)
    value = score_from_sums(total, float(entropies.sum()), len(rows))
    replicas = [
        score_from_sums(total - rows[b].sum(0), float(entropies.sum() - entropies[b].sum()), len(rows) - len(rows[b]))
        for b in block_slices(len(rows), number)
    ]
    method = f"delete-block jackknife, {number} blocks of fakes"
    return {"is": Variance.jackknife(replicas).around(value, len(rows), method).within(1)}


INCEPTION_SCORE = Metric(
    "is",
    frozenset({"probabilities"}),
    {"is": "higher"},
    "Inception Score, no splits (Salimans et al. 2016, arXiv:1606.03498)",
    measure,
    "none",
)
