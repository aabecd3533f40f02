"""Do 95 % intervals hold what they say they hold? Simulated, with binomial error; and two that do not are found out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from trainer.core.randomness import philox
from trainer.evaluation.reference_conventions import CONVENTIONS, metric_by_convention
from trainer.metrics import METRICS, Metric, frechet_distance
from trainer.metrics.base import Estimate, Float64Array, Sample
from trainer.metrics.intervals import Variance, block_slices

N, D = 200, 8


class Found(NamedTuple):
    """What many intervals were worth."""

    held: int
    of: int
    wideness: float
    """The mean half-width, over that of a perfect normal interval."""

    @property
    def too_few(self) -> bool:
        """Whether 95 % can be ruled out: so few, or fewer, would be held once in a thousand times."""
        return bool(binomtest(self.held, self.of, 0.95, alternative="less").pvalue < 1e-3)


def judge(estimates: list[Estimate], truth: float | None = None) -> Found:
    """Count intervals that hold the truth; by default the mean, which is the expectation at this sample size."""
    value, low, high = np.array([(e.value, e.low, e.high) for e in estimates]).T
    truth = value.mean() if truth is None else truth
    held = int(((low <= truth) & (truth <= high)).sum())
    return Found(held, len(value), float((high - low).mean() / 2 / (1.96 * value.std())))


def repeat(metric: Metric, repeats: int, training: Float64Array | None = None) -> Mapping[str, list[Estimate]]:
    """Evaluate fakes that are 1.2 times as wide and moved, again and again with new samples of both sides.

    Args:
        metric: that is measured.
        repeats: how many times.
        training: reals that stay the same.
    """
    found: dict[str, list[Estimate]] = {}
    for i in range(repeats):
        rng = philox("intervals", metric.name, i)
        real, fake, held_out = rng.standard_normal((3, N, D))
        fake = 0.3 + 1.2 * fake
        probabilities = np.exp(fake) / np.exp(fake).sum(1, keepdims=True)
        sides = Sample(real if training is None else training), Sample(fake, probabilities), Sample(held_out)
        for figure, estimate in metric(*sides).items():
            found.setdefault(figure, []).append(estimate)
    return found


@pytest.mark.parametrize(("name", "repeats"), [("fid", 400), ("vendi", 400), ("is", 400), ("fid_infinity", 300)])
def test_intervals_by_blocks_hold_what_they_say(name: str, repeats: int) -> None:
    found = judge(repeat(METRICS[name], repeats)[name])
    assert not found.too_few
    assert found.wideness < 1.35


def test_unbiased_figures_hold_the_truth_itself() -> None:
    """FID∞ and KID are for the distributions: d (0.2² + 0.3²), and the cubic kernel's integral over both.

    With x ~ N(μ, σ²) in d dimensions, E (x·y / d + 1)³ needs three moments of x·y: they are those of a product of
    tensors, and so MMD² = Σ C(3, j) |Δ Mⱼ|² / dʲ with Mⱼ the j-th moment tensor.
    """
    assert not judge(repeat(METRICS["fid_infinity"], 300)["fid_infinity"], D * (0.2**2 + 0.3**2)).too_few
    found = judge(repeat(METRICS["kid"], 400)["kid"], cubic_distance(0.3, 1.2))
    assert not found.too_few
    assert found.wideness < 1.35


def cubic_distance(mean: float, std: float) -> float:
    """Return MMD² between N(0, 1) and N(mean, std²) in D dimensions, by their moment tensors."""
    single = np.array([[1, 0, 1, 0], [1, mean, mean**2 + std**2, mean**3 + 3 * mean * std**2]])
    total = 0.0
    for degree, factor in ((1, 3), (2, 3), (3, 1)):
        for index in np.ndindex(*[D] * degree):
            powers = np.bincount(index, minlength=D)
            total += factor / D**degree * float(single[0, powers].prod() - single[1, powers].prod()) ** 2
    return total


@pytest.mark.parametrize("metric", [METRICS["prdc"], metric_by_convention(METRICS["prdc"], CONVENTIONS["stylegan3"])])
def test_intervals_of_prdc_are_wide_enough_and_no_more_than_twice_as_wide(metric: Metric) -> None:
    """A ball depends on its neighbours as well as on its centre, and the jackknife counts what they share twice."""
    for estimates in repeat(metric, 120).values():
        found = judge(estimates)
        assert not found.too_few
        assert found.wideness < 2.2


@pytest.mark.parametrize("name", ["authpct", "memorisation"])
def test_intervals_for_a_training_set_hold_what_they_say(name: str) -> None:
    training = philox("intervals", "training").standard_normal((N, D))
    found = judge(next(iter(repeat(METRICS[name], 300, training).values())))
    assert not found.too_few
    assert found.wideness < 1.2


@pytest.mark.parametrize("name", ["authpct", "memorisation"])
def test_intervals_near_a_limit_hold_what_they_say(name: str) -> None:
    """Where 1 fake of 50 is a copy, so that samples may have none; the others are farther than what is unseen."""
    found = []
    for i in range(400):
        rng = philox("limits", name, i)
        away = np.where(rng.random(60) < 0.02, 0.1, 3 + rng.random(60))
        sides = (Sample(rows[:, None]) for rows in (np.arange(40.0), 39 + away, 40 + rng.random(60)))
        found.append(next(iter(METRICS[name](*sides).values())))
    assert any(e.value == (100 if name == "authpct" else 0) for e in found)
    assert all(e.low < e.high for e in found)
    assert not judge(found).too_few


def test_p_values_are_uniform_where_there_is_nothing_to_find() -> None:
    """A test at 5 % rejects in 5 % of 300 cases, up to binomial error."""
    rejected = 0
    for i in range(300):
        real, fake, held_out = philox("null", i).standard_normal((3, 60, 3))
        figures = METRICS["memorisation"](Sample(real), Sample(fake), Sample(held_out))
        rejected += figures["memorisation_p"].value < 0.05
    assert binomtest(rejected, 300, 0.05).pvalue > 1e-3


def test_an_interval_of_the_wrong_scale_is_found_out() -> None:
    """Without the factor g - 1 of the jackknife."""
    good = repeat(METRICS["fid"], 200)["fid"]
    narrow = [Variance(((e.high - e.value) / 1.96) ** 2 / 19, 19).around(e.value, e.count, "") for e in good]
    assert judge(narrow).too_few


def test_a_naive_bootstrap_of_fid_is_found_out() -> None:
    """Doubles shrink the covariance's rank: bootstrapped distances are too large, and so is a percentile interval's."""
    found = []
    for i in range(60):
        rng = philox("bootstrap", i)
        real, fake = rng.standard_normal((2, 60, D))
        again = [frechet_distance(real[rng.integers(0, 60, 60)], fake[rng.integers(0, 60, 60)]) for _ in range(60)]
        low, high = np.quantile(again, [0.025, 0.975])
        found.append(Estimate(frechet_distance(real, fake), low, high, 60, "", ""))
    assert judge(found).too_few


def test_shares_at_their_limit_still_have_an_interval() -> None:
    """All blocks agree on 1, and 1 - 3 / n may be the truth all the same."""
    x = philox("limit").standard_normal((200, 2))
    found = METRICS["prdc"](Sample(x), Sample(x))
    assert found["recall"].value == found["recall"].high == 1
    assert 0.95 < found["recall"].low <= 1 - 3 / 200
    authentic = METRICS["authpct"](Sample(x), Sample(x + 99))["authpct"]
    assert authentic.value == authentic.high == 100
    assert 95 < authentic.low <= 100 * (1 - 3 / 200)
    for fake, unseen, end in ((x, x + 99, "high"), (x + 99, x, "low")):
        found = METRICS["memorisation"](Sample(x), Sample(fake), Sample(unseen))
        assert found["nearer"].value == getattr(found["nearer"], end) == (end == "high")
        assert 3 / 200 <= found["nearer"].high - found["nearer"].low < 0.05


def test_blocks_cover_every_row_once() -> None:
    spans = block_slices(47, 20)
    assert sorted(i for span in spans for i in range(47)[span]) == list(range(47))
    assert {len(range(47)[span]) for span in spans} == {2, 3}


def test_variances_add_with_satterthwaites_degrees_of_freedom() -> None:
    total = Variance(1.0, 10) + Variance(3.0, 5)
    assert (total.value, total.freedom) == (4.0, 16 / (1 / 10 + 9 / 5))
    assert Variance.of_mean(np.array([1.0, 2, 3, 6])).value == pytest.approx(14 / 3 / 4)
    assert Variance.jackknife([1, 2, 3]).value == pytest.approx(2 / 3 * 2)
    assert Variance(4.0, 1e9).around(1, 9, "").high == pytest.approx(1 + 2 * norm.ppf(0.975))
