"""Figures by other programs' definitions, against those definitions written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import sqrtm

from trainer.evaluation.extraction import ExtractedSamples
from trainer.evaluation.figures import Comparison, Figure
from trainer.evaluation.reference_conventions import CONVENTIONS, metric_by_convention
from trainer.metrics import METRICS
from trainer.metrics.base import Float64Array, Sample
from trainer.metrics.inception_score import inception_score

REAL = np.random.default_rng(1).standard_normal((80, 4))
FAKE = np.random.default_rng(2).standard_normal((60, 4)) @ np.diag([1.0, 2.0, 0.5, 1.0]) + 0.3


def measured(name: str, convention: str, real: Float64Array = REAL, fake: Float64Array = FAKE) -> dict[str, float]:
    """Return the figures of a metric as a convention has them."""
    metric = metric_by_convention(METRICS[name], CONVENTIONS[convention])
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
    metric = metric_by_convention(METRICS["kid"], few)
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


def test_precision_and_recall_like_theirs_have_intervals_within_0_and_1() -> None:
    """Also where all are inside: 1 - 3 / n may be the truth all the same."""
    metric = metric_by_convention(METRICS["prdc"], CONVENTIONS["stylegan3"])
    assert metric
    for estimate in metric(Sample(REAL), Sample(REAL)).values():
        assert estimate.value == estimate.high == 1
        assert 0.8 < estimate.low <= 1 - 3 / 80
    for estimate in metric(Sample(REAL), Sample(REAL + 99)).values():
        assert estimate.value == estimate.low == 0 < 3 / 80 <= estimate.high


def test_the_inception_score_like_theirs_is_a_mean_over_ten_parts() -> None:
    probabilities = np.exp(FAKE) / np.exp(FAKE).sum(1, keepdims=True)
    metric = metric_by_convention(METRICS["is"], CONVENTIONS["torch-fidelity"])
    assert metric
    found = metric(Sample(), Sample(probabilities=probabilities))["is"]
    parts = [inception_score(probabilities[start : start + 6]) for start in range(0, 60, 6)]
    assert found.value == pytest.approx(np.mean(parts), rel=1e-12)
    assert found.value < inception_score(probabilities)
    assert found.low < found.value < found.high
    vague = np.exp(0.01 * FAKE) / np.exp(0.01 * FAKE).sum(1, keepdims=True)
    assert metric(Sample(), Sample(probabilities=vague))["is"].low >= 1
    with pytest.raises(ValueError, match="10 parts need as many fakes, and there are 9"):
        metric(Sample(), Sample(probabilities=probabilities[:9]))


def seen(features: Float64Array) -> ExtractedSamples:
    """Return what is known of pictures, as from an extractor."""
    return ExtractedSamples(features.astype(np.float32), None, np.zeros((0, 1, 1, 3), np.uint8), None)


def against(count: int, name: str = "fid") -> Figure:
    """Return a figure of 60 fakes against so many reals."""
    metric = metric_by_convention(METRICS[name], CONVENTIONS["pytorch-fid"])
    assert metric
    rows = np.random.default_rng(3).standard_normal((count, 4))
    return Comparison(seen(FAKE), seen(rows), None).figures(metric, "x")[0]


def test_figures_against_all_reals_say_of_how_many() -> None:
    """In the column, so that those of other numbers do not share it; the floor is of as many against the rest."""
    figure = against(200)
    assert figure.column == "fid_60/x/of-200-reals"
    plain = figure.to_json()
    assert (plain["count"], plain["reals"]) == (60, 200)
    assert (plain["floor"]["count"], plain["floor"]["reals"]) == (60, 140)
    few = against(40)
    assert few.column == "fid_60/x/of-40-reals"
    assert few.floor
    assert (few.floor.count, few.floor.reals) == (20, 20)
    assert against(60).column == "fid_60/x"


def test_what_a_program_does_not_have_is_no_figure_of_its() -> None:
    assert metric_by_convention(METRICS["kid"], CONVENTIONS["pytorch-fid"]) is None
    assert metric_by_convention(METRICS["prdc"], CONVENTIONS["clean-fid"]) is None
    assert metric_by_convention(METRICS["is"], CONVENTIONS["pytorch-fid"]) is None
    assert metric_by_convention(METRICS["vendi"], CONVENTIONS["stylegan3"]) is None
