"""Draws are functions of their full key."""

from __future__ import annotations

import torch

from trainer.randomness import Draws, philox


def test_the_same_key_draws_the_same() -> None:
    assert torch.equal(Draws(1, 0).noise(640, 3, 16, 8), Draws(1, 0).noise(640, 3, 16, 8))
    assert torch.equal(Draws(1, 0).flips(640, 3, 64), Draws(1, 0).flips(640, 3, 64))


def test_each_part_of_the_key_counts() -> None:
    base = Draws(1, 0).noise(640, 3, 4, 4)
    others = [
        Draws(2, 0).noise(640, 3, 4, 4),
        Draws(1 + 2**32, 0).noise(640, 3, 4, 4),  # where torch's CPU generator would repeat itself
        Draws(1, 1).noise(640, 3, 4, 4),
        Draws(1, 0).noise(641, 3, 4, 4),
        Draws(1, 0).noise(640, 4, 4, 4),
    ]
    assert not any(torch.equal(base, other) for other in others)


def test_parts_of_a_key_do_not_run_together() -> None:
    assert philox(1, 23).integers(1 << 62) != philox(12, 3).integers(1 << 62)
    assert philox("a", "b").integers(1 << 62) != philox("ab").integers(1 << 62)


def test_draws_look_as_they_should() -> None:
    noise = Draws(0, 0).noise(0, 0, 1000, 100)
    assert noise.dtype == torch.float32
    assert abs(noise.mean().item()) < 0.02
    assert abs(noise.std().item() - 1) < 0.02
    assert abs(Draws(0, 0).flips(0, 0, 10_000).float().mean().item() - 0.5) < 0.02


def test_the_values_are_those_of_always() -> None:
    """A NumPy whose Philox or ziggurat changed would change every run: constraints.txt would have to say so."""
    values = Draws(7, 0).noise(128, 1, 1, 3)[0].tolist()
    assert values == GOLDEN, values


GOLDEN = [1.4094280004501343, 0.22177354991436005, 0.32826468348503113]
