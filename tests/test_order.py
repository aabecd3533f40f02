"""The order is a permutation per epoch, for any shards, any window and from any position."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.dataset.order import Order, permute

SHARDS = st.lists(st.integers(1, 40), min_size=1, max_size=30)
SEEDS = st.integers(0, 2**40)


@given(n=st.integers(1, 3000), seed=SEEDS)
def test_permute_is_a_permutation(n: int, seed: int) -> None:
    assert sorted(permute(np.arange(n), n, seed)) == list(range(n))


@given(shards=SHARDS, seed=SEEDS, window=st.integers(0, 40), epoch=st.integers(0, 10**6))
@settings(max_examples=200)
def test_each_epoch_visits_each_sample_once(shards: list[int], seed: int, window: int, epoch: int) -> None:
    n = sum(shards)
    order = Order(shards, seed, window)
    assert sorted(order(np.arange(epoch * n, (epoch + 1) * n))) == list(range(n))


@given(shards=SHARDS, seed=SEEDS, window=st.integers(0, 40), start=st.integers(0, 5000), data=st.data())
@settings(max_examples=100)
def test_any_position_is_found_alone(
    shards: list[int], seed: int, window: int, start: int, data: st.DataObject
) -> None:
    positions = np.arange(start, start + 200)
    together = Order(shards, seed, window)(positions)
    asked = data.draw(st.lists(st.integers(0, 199), min_size=1, max_size=20))
    alone = Order(shards, seed, window)
    assert [int(alone(positions[i : i + 1])[0]) for i in asked] == together[asked].tolist()


@given(shards=SHARDS, seed=SEEDS, window=st.integers(1, 10))
def test_a_window_needs_only_its_shards(shards: list[int], seed: int, window: int) -> None:
    order = Order(shards, seed, window)
    shard_of = np.repeat(np.arange(len(shards)), shards)
    visited = shard_of[order(np.arange(sum(shards)))]
    plan = order.epoch(0)
    for first, last in zip(plan.windows[:-1], plan.windows[1:], strict=True):
        here = visited[plan.starts[first] : plan.starts[last]]
        assert set(here) == set(plan.shards[first:last])


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = {tuple(Order([50, 50], seed)(np.arange(e * 100, e * 100 + 100))) for seed in range(5) for e in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_permutations_are_about_equally_frequent(n: int) -> None:
    """Chi-squared, three standard deviations above its mean at most; the keys are fixed, and so is the result."""
    runs = 6000
    counts = Counter(tuple(permute(np.arange(n), n, seed, "uniform")) for seed in range(runs))
    cells = {2: 2, 3: 6, 4: 24}[n]
    expected = runs / cells
    chi2 = sum((counts[key] - expected) ** 2 for key in counts) / expected + (cells - len(counts)) * expected
    assert chi2 < cells - 1 + 3 * np.sqrt(2 * (cells - 1))


def test_a_billion_samples_need_no_memory_of_their_own() -> None:
    order = Order(np.full(100_000, 10_000), seed=1, window=64)
    started = time.perf_counter()
    assert len(set(order(np.arange(10**12, 10**12 + 1024)).tolist())) == 1024
    plan = order.epoch(1000)
    assert plan.shards.nbytes + plan.starts.nbytes + plan.windows.nbytes < 5_000_000
    assert time.perf_counter() - started < 60  # a hang, not a speed: bench/ measures that


@pytest.mark.parametrize(("shards", "window"), [([], 0), ([3, 0], 0), ([3], -1)])
def test_impossible_orders_are_refused(shards: list[int], window: int) -> None:
    with pytest.raises(ValueError, match=r"order"):
        Order(shards, 0, window)
