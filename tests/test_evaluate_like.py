"""Figures by other programs' definitions, against those definitions written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import sqrtm

from trainer.evaluation.like import inside, like
from trainer.extractors.conventions import CONVENTIONS
from trainer.metrics import METRICS
from trainer.metrics.base import Doubles, Sample

REAL = np.random.default_rng(1).standard_normal((80, 4))
FAKE = np.random.default_rng(2).standard_normal((60, 4)) @ np.diag([1.0, 2.0, 0.5, 1.0]) + 0.3


def measured(name: str, convention: str, real: Doubles = REAL, fake: Doubles = FAKE) -> dict[str, float]:
    """Return the figures of a metric as a convention has them."""
    metric = like(METRICS[name], CONVENTIONS[convention])
    assert metric
    return {figure: estimate.value for figure, estimate in metric(Sample(real), Sample(fake)).items()}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_fid_has_the_covariances_of_the_convention(convention: str) -> None:
    a, b = (np.cov(rows, rowvar=False, ddof=CONVENTIONS[convention].ddof) for rows in (REAL, FAKE))
    square = np.square(REAL.mean(0) - FAKE.mean(0)).sum()
    expected = square + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real
    assert measured("fid", convention)["fid"] == pytest.approx(expected, rel=1e-9)


def test_kid_is_a_mean_over_subsets() -> None:
    """Of all pictures, when there are no more than in a subset: the formula of stylegan3."""
    real, fake = REAL[:60], FAKE
    n, d = fake.shape
    a = (fake @ fake.T / d + 1) ** 3 + (real @ real.T / d + 1) ** 3
    b = (fake @ real.T / d + 1) ** 3
    expected = ((a.sum() - np.diag(a).sum()) / (n - 1) - b.sum() * 2 / n) / n
    assert measured("kid", "stylegan3", real, fake)["kid"] == pytest.approx(expected, rel=1e-9)
    few = replace(CONVENTIONS["stylegan3"], kid_subset_size=20)
    metric = like(METRICS["kid"], few)
    assert metric
    estimate = metric(Sample(real), Sample(fake))["kid"]
    assert estimate.value != pytest.approx(expected, rel=1e-9)
    assert estimate.value == pytest.approx(expected, abs=estimate.high - estimate.low)


def test_precision_and_recall_are_by_brute_force() -> None:
    k = 3
    for centres, queries, name in ((REAL, FAKE, "precision"), (FAKE, REAL, "recall")):
        own = np.sort(np.linalg.norm(centres[:, None] - centres[None], axis=2), axis=1)[:, k]
        expected = (np.linalg.norm(queries[:, None] - centres[None], axis=2) <= own).any(1).mean()
        assert 0 < expected < 1
        assert measured("prdc", "stylegan3")[name] == pytest.approx(expected)


def test_a_closed_ball_holds_its_surface() -> None:
    line = np.arange(4.0)[:, None] * 3
    assert inside(line, np.array([[-3.0]]), 1, closed=True) == 1
    assert inside(line, np.array([[-3.0]]), 1, closed=False) == 0


def test_what_a_program_does_not_have_is_no_figure_of_its() -> None:
    assert like(METRICS["kid"], CONVENTIONS["pytorch-fid"]) is None
    assert like(METRICS["prdc"], CONVENTIONS["clean-fid"]) is None
    assert like(METRICS["vendi"], CONVENTIONS["stylegan3"]) is None
