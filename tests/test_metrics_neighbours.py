"""Nearest neighbours, precision, recall, density and coverage against brute force in whole numbers."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.core.randomness import philox
from trainer.metrics import arrays, balls, nearest, neighbours, prdc
from trainer.metrics.base import Float64Array
from trainer.metrics.neighbours import SquaredDistances, nearest_rows
from trainer.metrics.prdc import FIGURES, count_prdc

Points = list[tuple[int, int]]

# Few places, so that there are doubles and ties everywhere.
points = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=24)


def squared(x: Float64Array, y: Float64Array) -> Float64Array:
    """Return all squared distances by the direct formula."""
    return np.asarray(np.square(x[:, None] - y[None]).sum(2))


def brute(real: Float64Array, fake: Float64Array, k: int, closed: bool = False) -> dict[str, float]:
    """Return the figures by their definitions."""
    radii = [np.sort(squared(x, x), axis=1)[:, k] for x in (real, fake)]  # the first is the row itself
    between, inside = squared(real, fake), np.less_equal if closed else np.less
    in_real, in_fake = inside(between, radii[0][:, None]), inside(between, radii[1][None])
    values = in_real.any(0).mean(), in_fake.any(1).mean(), in_real.sum() / (k * len(fake)), in_real.any(1).mean()
    return dict(zip(FIGURES, map(float, values), strict=True))


@given(points, points, st.integers(1, 3), st.sampled_from([0.0, 1e7]))
@settings(max_examples=60, deadline=None)
def test_figures_are_those_of_the_definitions(real: Points, fake: Points, k: int, far: float) -> None:
    """Exactly, also far from the origin, where |x|² + |y|² - 2 x·y has no digit left that is right."""
    x, y = np.array(real) + far, np.array(fake) + far
    assert prdc(x, y, k) == brute(x, y, k)


def test_figures_by_hand() -> None:
    """Radii 1, 1, 1, 8 and 4, 4, 5: -1 and 3 lie on borders, which are outside; 3 and 8 are in the ball of 10."""
    real, fake = np.array([[0.0], [1], [2], [10]]), np.array([[-1.0], [3], [8]])
    assert prdc(real, fake, 1) == {"precision": 2 / 3, "recall": 1.0, "density": 2 / 3, "coverage": 0.25}


def test_a_border_is_as_sharp_as_float64() -> None:
    """The last number below 1 is inside a ball of radius 1, and 1 is not."""
    real, fake = np.array([[0.0], [1]]), -np.array([[np.nextafter(1, 0)], [1]])
    assert prdc(real, fake, 1) == {"precision": 0.5, "recall": 0.0, "density": 0.5, "coverage": 0.5}


@pytest.mark.parametrize("d", [2, 700])
def test_equal_samples_reach_the_limit(d: int) -> None:
    x = 5 + philox("equal", d).standard_normal((90, d))
    assert prdc(x, x) == dict.fromkeys(FIGURES, 1.0)
    assert prdc(x, x + 1e6) == dict.fromkeys(FIGURES, 0.0)


@given(points, points, st.integers(1, 4), st.sampled_from([3, 2048]))
@settings(max_examples=60, deadline=None)
def test_the_nearest_are_those_of_brute_force(queries: Points, reference: Points, k: int, rows: int) -> None:
    """In order, the first of equals first, whatever the pieces."""
    x, y = np.array(queries, float), np.array(reference, float)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "ROWS_PER_PIECE", rows)
        patch.setattr(neighbours, "SPARE_CANDIDATES", 0)
        distances, places = nearest(x, y, k)
        own = nearest_rows(x, x, min(k, len(x) - 1), itself=True)
    exact = squared(x, y)
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(distances, np.sqrt(np.take_along_axis(exact, order, 1)))
    others = squared(x, x)
    np.fill_diagonal(others, np.inf)
    np.testing.assert_array_equal(own[0], np.sort(others, axis=1)[:, : own[0].shape[1]])
    assert not (own[1] == np.arange(len(x))[:, None]).any()


def test_computed_distances_are_as_wrong_as_is_said_at_most() -> None:
    for name, d, far in (("near", 3, 0.0), ("far", 50, 1e5), ("wide", 900, 10.0)):
        x, y = (far + philox(name, side).standard_normal((40, d)) for side in "xy")
        squares = SquaredDistances(x, y)
        found = np.concatenate([piece for _, piece in squares(slice(0, 40))], axis=1)
        assert 0 < abs(found - squared(x, y)).max() <= squares.error


def test_a_block_left_out_is_as_if_it_had_never_been() -> None:
    """Exactly: the neighbours beyond k that are known take the places of those that left."""
    x, y = (philox("blocks", side).standard_normal((80, 4)) for side in "xy")
    whole, *without = count_prdc(x, y, 3, 8)
    assert whole == prdc(x, y, 3)
    assert balls.SPARE_NEIGHBOURS >= 10
    for i, found in enumerate(without):
        block = slice(10 * i, 10 * i + 10)
        assert found == prdc(np.delete(x, block, 0), np.delete(y, block, 0), 3)


FAKES: dict[str, Callable[[Float64Array], Float64Array]] = {
    "alike": lambda x: x,
    "far apart": lambda x: 30 * x,
    "all but one place": lambda x: 0.01 * x,
    "one place": lambda x: 0 * x,
    "on a lattice": np.round,
}


@pytest.mark.parametrize("name", FAKES)
@pytest.mark.parametrize("closed", [False, True])
def test_pairs_that_are_inside_whatever_is_left_out_count_for_every_block(
    name: str, closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bits of the definitions, in pieces of any size, where balls hold nothing and where they hold all."""
    monkeypatch.setattr(balls, "PAIRS_PER_PIECE", 100)
    monkeypatch.setattr(arrays, "ROWS_PER_PIECE", 33)
    x = philox("replicas x").standard_normal((70, 2))
    y = FAKES[name](philox("replicas y").standard_normal((50, 2)))
    x = np.round(x) if name == "on a lattice" else x
    whole, *without = count_prdc(x, y, 3, 10, closed)
    assert whole == brute(x, y, 3, closed)
    for i, found in enumerate(without):
        left = np.delete(x, slice(7 * i, 7 * i + 7), 0), np.delete(y, slice(5 * i, 5 * i + 5), 0)
        assert found == brute(*left, 3, closed)


def test_a_closed_ball_holds_its_surface() -> None:
    line = np.arange(4.0)[:, None] * 3
    found = [count_prdc(line, np.array([[-3.0], [-30.0]]), 1, 0, closed)[0]["precision"] for closed in (True, False)]
    assert found == [0.5, 0.0]


@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_memory_is_bounded_where_every_ball_holds_everything(scale: float) -> None:
    """Of 1,536² pairs and 20 blocks: less than a tenth of one float64 for each pair and block."""
    x, y = (philox("memory", side).standard_normal((1536, 3)) for side in "xy")
    tracemalloc.start()
    found = count_prdc(x, scale * y, 5, 20)[0]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1 in (found["precision"], found["recall"])
    assert most < 250 * 2**20


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="the reals have 5 rows, and at least 6 are needed"):
        prdc(np.ones((5, 2)), np.ones((9, 2)))
    with pytest.raises(ValueError, match="3 neighbours need at least 3 rows"):
        nearest(np.ones((4, 2)), np.ones((2, 2)), 3)
