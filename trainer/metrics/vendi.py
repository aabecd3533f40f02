"""Vendi score: the effective number of different images in a sample.

Friedman and Dieng 2023, arXiv:2210.02410, definition 3.1, order 1: exp of the entropy of the eigenvalues of K / n, here
with the cosine kernel. K / n = XXᵀ / n has the eigenvalues of the small matrix XᵀX / n, so no approximation is needed.
"""

from __future__ import annotations

import numpy as np
import torch

from trainer.metrics.arrays import check_rows, float64_pieces
from trainer.metrics.base import Estimate, Features, Float64Array, Metric, Sample
from trainer.metrics.intervals import Variance, block_number, block_slices


def vendi_score(rows: Features) -> float:
    """Return the score of (n, d) rows: from 1, if all have the same direction, to min(n, d).

    Raises:
        ValueError: the rows cannot be measured, or one is 0 and has no direction.
    """
    rows = compact(check_rows(rows, "features", least=1))
    return effective_number(gram(rows), len(rows))


def compact(rows: Features) -> Features:
    """Return (n, min(n, d)) rows with the same inner products."""
    if len(rows) > rows.shape[1]:
        return rows
    # With X = RᵀQᵀ and orthonormal Q, XXᵀ = RᵀR: the rows of Rᵀ serve as well, and are shorter.
    return np.transpose(np.linalg.qr(rows.astype(np.float64).T, mode="r"))


def gram(rows: Features) -> Float64Array:
    """Return XᵀX, (d, d), of the rows normalized to length 1.

    Raises:
        ValueError: one is 0.
    """
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for piece in float64_pieces(rows):
        lengths = np.linalg.norm(piece, axis=1, keepdims=True)
        if not lengths.all():
            raise ValueError("a row of features is 0 and has no direction")
        piece /= lengths
        total += piece.T @ piece
    return total


def effective_number(matrix: Float64Array, count: int) -> float:
    """Return exp of the entropy of the eigenvalues of XᵀX / n."""
    eigenvalues = torch.linalg.eigvalsh(torch.from_numpy(matrix / count)).clamp_min(0)
    return float(torch.special.entr(eigenvalues).sum().exp())


def vendi(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure the features of the fakes."""
    rows = compact(check_rows(fake.features, "the features of the fakes", least=4))
    total, number = gram(rows), block_number(len(rows))
    replicas = [
        # XᵀX is a sum over rows, so a block can be taken away again.
        effective_number(total - gram(rows[span]), len(rows) - len(rows[span]))
        for span in block_slices(len(rows), number)
    ]
    value, method = effective_number(total, len(rows)), f"delete-block jackknife, {number} blocks of fakes"
    return {"vendi": Variance.jackknife(replicas).around(value, len(rows), method).within(1)}


VENDI = Metric(
    "vendi",
    frozenset({"features"}),
    {"vendi": "data"},
    "Vendi score of the fakes, cosine kernel, order 1 (Friedman and Dieng 2023, arXiv:2210.02410)",
    vendi,
    "none",
)
