"""The mathematics of metrics against closed forms, values computed by hand, and direct formulas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from trainer.core.randomness import philox
from trainer.metrics import METRICS, frechet_distance, kernel_distance, prdc
from trainer.metrics import arrays as pieces_of
from trainer.metrics.base import Float64Array, Sample
from trainer.metrics.frechet import Gaussian, leave_out_blocks
from trainer.metrics.frechet_infinity import estimate_fid_infinity
from trainer.metrics.inception_score import inception_score
from trainer.metrics.intervals import block_slices
from trainer.metrics.kernel import KernelSums
from trainer.metrics.memorisation import authentic_fakes, probability_nearer
from trainer.metrics.moments import Moments
from trainer.metrics.vendi import vendi_score


def rows(name: str, n: int, d: int) -> Float64Array:
    """Draw (n, d) standard normal rows."""
    return philox("test metrics", name).standard_normal((n, d))


def white(name: str, n: int, d: int) -> Float64Array:
    """Draw rows whose mean is 0 and whose unbiased covariance is 1, exactly."""
    x = rows(name, n, d)
    x -= x.mean(0)
    return np.linalg.solve(np.linalg.cholesky(x.T @ x / (n - 1)), x.T).T


@pytest.mark.parametrize("first", [3.0, 0.0])
def test_frechet_distance_of_exact_moments(first: float) -> None:
    """|Δμ|² + Σ (σ - τ)², within 1e-12, also where a feature never changes; with ddof = 0 it would be 2 % off."""
    a, b = np.array([first, 1.0, 2.0]), np.array([0.5, 2.0, 2.0])
    real, fake = white("a", 50, 3) * a, white("b", 70, 3) * b + [1, 0, -2]
    assert frechet_distance(real, fake) == pytest.approx(5 + np.square(a - b).sum(), abs=1e-12)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 60, 8), (6, 9, 12), (6, 40, 12)])
def test_frechet_distance_is_that_of_the_matrix_root(n: int, m: int, d: int) -> None:
    """Covariances that do not commute, of full rank and of less: within 1e-6, which is as good as the root is."""
    mix = rows("mix", d, d)
    real, fake = rows("real", n, d) @ mix, 1 + rows("fake", m, d)
    s, t = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = sqrtm(s @ t + 1e-14 * np.eye(d)).real
    direct = np.square(real.mean(0) - fake.mean(0)).sum() + np.trace(s + t - 2 * root)
    assert frechet_distance(real, fake) == pytest.approx(direct, rel=1e-6)


@pytest.mark.parametrize("n", [5, 300])
def test_equal_samples_have_no_frechet_distance(n: int) -> None:
    x = 1000 + 10 * rows("same", n, 20)
    x[:, 7] = 3  # a feature that never changes
    trace = x.var(0, ddof=1).sum()
    assert 0 <= frechet_distance(x, x[::-1]) <= 1e-11 * trace


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**20))
@settings(max_examples=30, deadline=None)
def test_moments_are_those_of_all_rows_in_any_parts(sizes: list[int], seed: int) -> None:
    """Within 1e-12, whatever is put together, and taken back."""
    parts = [philox(seed, i).standard_normal((n, 3)) + 100 for i, n in enumerate(sizes)]
    total, x = Moments.of(parts[0]), np.concatenate(parts)
    for part in parts[1:]:
        total += Moments.of(part)
    assert total.count == len(x)
    np.testing.assert_allclose(total.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(total.scatter, (x - x.mean(0)).T @ (x - x.mean(0)), atol=1e-9)
    if len(parts) > 1:
        rest = total - Moments.of(parts[-1])
        x = np.concatenate(parts[:-1])
        np.testing.assert_allclose(rest.mean, x.mean(0), rtol=1e-13)
        np.testing.assert_allclose(rest.scatter, (x - x.mean(0)).T @ (x - x.mean(0)), atol=1e-9)


@pytest.mark.parametrize("d", [3, 90])
def test_a_block_left_out_is_as_if_it_had_never_been(d: int) -> None:
    x, other = rows("blocks", 60, d), Gaussian.of(rows("other", 50, d))
    without = [Gaussian.of(np.delete(x, block, axis=0)) for block in block_slices(60, 5)]
    for found, expected in zip(leave_out_blocks(x, 5), without, strict=True):
        assert found.distance(other) == pytest.approx(expected.distance(other), rel=1e-10)


def test_fid_infinity_has_no_bias() -> None:
    """Of 24 pairs of samples of one distribution: FID is 7 standard errors and more above 0, FID∞ within 3."""
    fid, infinity = [], []
    for i in range(24):
        x, y = rows(f"x{i}", 400, 12), rows(f"y{i}", 400, 12)
        fid.append(frechet_distance(x, y))
        infinity.append(estimate_fid_infinity(x, y)[0])
    assert np.mean(fid) > 7 * np.std(fid, ddof=1) / 24**0.5
    assert abs(np.mean(infinity)) < 3 * np.std(infinity, ddof=1) / 24**0.5


def infinity(real: Float64Array, fake: Float64Array, left_out: int) -> float:
    """Return FID∞ by its definition, of all rows but a block; -1 leaves out none."""
    means = []
    gone = [block_slices(len(x), 20)[left_out] if left_out >= 0 else slice(len(x), len(x)) for x in (real, fake)]
    for parts in (1, 2, 4):
        cut = [
            [np.setdiff1d(np.r_[part], np.r_[out]) for part in block_slices(len(x), parts)]
            for x, out in zip((real, fake), gone, strict=True)
        ]
        means.append(np.mean([frechet_distance(real[a], fake[b]) for a, b in zip(*cut, strict=True)]))
    return float(np.polyfit([1, 2, 4], means, 1)[1])


def test_fid_infinity_without_a_block_is_as_if_it_had_never_been() -> None:
    """All parts computed anew: within 1e-8."""
    sides = rows("left", 203, 4), 1 + rows("right", 190, 4)
    value, variance = estimate_fid_infinity(*sides)
    assert value == pytest.approx(infinity(*sides, -1), rel=1e-8)
    replicas = np.array([infinity(*sides, j) for j in range(20)])
    assert variance.value == pytest.approx(19 / 20 * np.square(replicas - replicas.mean()).sum(), rel=1e-8)


def test_fid_infinity_needs_full_rank_in_each_quarter() -> None:
    with pytest.raises(ValueError, match=r"with 30 features .* needs 128 pictures, and there are 100"):
        METRICS["fid_infinity"](Sample(rows("a", 100, 30)), Sample(rows("b", 100, 30)))


def test_kernel_distance_by_hand() -> None:
    """27 + 1 - 2 (1 + 64 + 1 + 343) / 4."""
    assert kernel_distance(np.array([[1.0], [2.0]]), np.array([[0.0], [3.0]])) == -176.5


def test_kernel_distance_of_normal_distributions() -> None:
    """E (xy + 1)³ = m₃m₃' + 3 m₂m₂' + 3 m₁m₁' + 1: the mean of 400 estimates lies within 4 standard errors."""
    real, fake = (rows(name, 400 * 50, 1).reshape(400, 50, 1) for name in ("normal a", "normal b"))
    fake = 0.5 + 1.5 * fake
    a, b = np.array([0.0, 1.0, 0.0]), np.array([0.5, 0.25 + 2.25, 0.125 + 3 * 0.5 * 2.25])
    expected = float(np.square(a - b) @ [3, 3, 1])
    found = [kernel_distance(x, y) for x, y in zip(real, fake, strict=True)]
    assert abs(np.mean(found) - expected) < 4 * np.std(found, ddof=1) / 20
    assert np.std(found, ddof=1) / 20 < 0.1 * expected


def test_the_variance_of_the_kernel_distance_is_that_of_leaving_out_each_row() -> None:
    x, y = rows("x", 7, 3), 1 + rows("y", 5, 3)
    sides = [
        [kernel_distance(np.delete(x, i, 0), y) for i in range(7)],
        [kernel_distance(x, np.delete(y, i, 0)) for i in range(5)],
    ]
    expected = sum((len(s) - 1) / len(s) * np.square(np.array(s) - np.mean(s)).sum() for s in sides)
    assert KernelSums.of(x, y).variance.value == pytest.approx(expected, rel=1e-10)


def test_pieces_and_order_of_rows_change_no_more_than_the_last_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sums within 1e-10; not at all of what compares distances."""
    x, y = rows("x", 50, 6).astype(np.float32), (0.3 + rows("y", 45, 6)).astype(np.float32)
    order = philox("order").permutation(50)
    shuffled = x[order], y[::-1]
    sums = [[f(x, y), f(*shuffled)] for f in (frechet_distance, kernel_distance)]
    exact = [prdc(x, y), prdc(*shuffled)]
    monkeypatch.setattr(pieces_of, "ROWS_PER_PIECE", 7)
    for found, f in zip(sums, (frechet_distance, kernel_distance), strict=True):
        assert [*found, f(x, y)] == pytest.approx([found[0]] * 3, rel=1e-10)
    assert exact == [prdc(x, y)] * 2


def test_vendi_score_counts_what_differs() -> None:
    """k directions in equal parts are k, two with a right angle in parts p and q are p⁻ᵖ q⁻ᵠ; within 1e-12."""
    for n, d in ((12, 4), (4, 40)):
        x = np.tile(np.eye(4, d), (n // 4, 1)) * np.arange(1, n + 1)[:, None]
        assert vendi_score(x) == pytest.approx(4, abs=1e-12)
    assert vendi_score(np.eye(2)[[0, 0, 0, 1]]) == pytest.approx(0.75**-0.75 * 0.25**-0.25, abs=1e-12)
    assert vendi_score(np.ones((5, 3))) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="is 0 and has no direction"):
        vendi_score(np.zeros((3, 2)))


def test_inception_score_by_hand() -> None:
    """As many classes as are sure and equal; 1 if nothing is known; 2^(1/2 · 1/2 · …) in between."""
    assert inception_score(np.eye(3)) == pytest.approx(3, abs=1e-12)
    assert inception_score(np.full((4, 3), 1 / 3)) == pytest.approx(1, abs=1e-12)
    half = np.array([[1, 0], [0.5, 0.5]])  # the mean is (3/4, 1/4)
    expected = np.exp(0.75 * np.log(4 / 3) + 0.25 * np.log(4) - 0.5 * np.log(2))
    assert inception_score(half) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="sum to 1"):
        inception_score(np.ones((2, 2)))


def test_intra_fid_is_the_mean_over_classes_and_says_which_it_leaves_out() -> None:
    x, y, labels = rows("x", 190, 3), rows("y", 190, 3), np.repeat([0, 1, 4, -1], [60, 60, 10, 60])
    found = METRICS["intra_fid"](Sample(x, labels=labels), Sample(y, labels=labels))["intra_fid"]
    expected = np.mean([frechet_distance(x[:60], y[:60]), frechet_distance(x[60:120], y[60:120])])
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert (found.count, found.reals) == (190, 190)
    halves = [METRICS["fid"](Sample(x[s]), Sample(y[s]))["fid"] for s in (slice(60), slice(60, 120))]
    widths = [e.high - e.value for e in (*halves, found)]
    assert max(widths[:2]) / 2 < widths[2] < (widths[0] ** 2 + widths[1] ** 2) ** 0.5 / 2  # more degrees of freedom
    assert found.method.endswith("fewer than 50 pictures and left out: classes 4")


def test_copies_are_not_authentic() -> None:
    """A fake at 1.4 is nearer to 1 than 2 is, one at 3.5 farther from 2 than 1 is; on the border it is no copy."""
    real, fake = np.array([[0.0], [1], [2]]), np.array([[1.4], [3.5], [3], [2]])
    assert authentic_fakes(real, fake).tolist() == [0, 1, 0, 0]


def test_a_generator_that_copies_is_found_out() -> None:
    real, held_out, fake = (rows(name, 200, 5) for name in ("train", "unseen", "fake"))
    honest = METRICS["memorisation"](Sample(real), Sample(fake), Sample(held_out))
    assert honest["memorisation_p"].value > 0.05
    assert honest["nearer"].low < 0.5 < honest["nearer"].high
    copied = METRICS["memorisation"](Sample(real), Sample(real + 0.1 * fake), Sample(held_out))
    assert copied["memorisation_p"].value < 1e-20
    assert copied["nearer"].low > 0.9
    assert probability_nearer(np.array([1.0, 2]), np.array([2.0, 3]))[0] == 3.5 / 4


BAD = [
    (np.ones((8, 3)), np.ones((8, 2)), "reals have 3 features and fakes 2"),
    (np.ones((1, 2)), np.ones((8, 2)), "the reals have 1 rows"),
    (np.ones(8), np.ones((8, 2)), r"shape \(8,\)"),
    (np.ones((8, 2)), np.full((8, 2), np.nan), "fakes hold NaN"),
]


@pytest.mark.parametrize(("case", "f"), list(itertools.product(BAD, (frechet_distance, kernel_distance, prdc))))
def test_what_cannot_be_compared_is_refused(case: tuple[Float64Array, Float64Array, str], f: object) -> None:
    with pytest.raises(ValueError, match=case[2]):
        f(*case[:2])  # type: ignore[operator]


def test_every_metric_says_what_is_missing() -> None:
    for metric in METRICS.values():
        with pytest.raises(ValueError, match=r"missing|needs 4 pictures"):
            metric(Sample(), Sample())
        assert metric.needs
        assert metric.summary
