"""Draws are functions of their full key."""

from __future__ import annotations

import torch

from trainer.core.randomness import Draws, normal, philox


def noise(draws: Draws, images_seen: int, micro_batch: int, n: int, z_dim: int) -> torch.Tensor:
    return normal(draws.rng("z", images_seen, micro_batch), n, z_dim)


def test_the_same_key_draws_the_same() -> None:
    assert torch.equal(noise(Draws(1, 0), 640, 3, 16, 8), noise(Draws(1, 0), 640, 3, 16, 8))
    assert torch.equal(Draws(1, 0).flips(640, 3, 64), Draws(1, 0).flips(640, 3, 64))


def test_each_part_of_the_key_counts() -> None:
    base = noise(Draws(1, 0), 640, 3, 4, 4)
    others = [
        noise(Draws(2, 0), 640, 3, 4, 4),
        noise(Draws(1 + 2**32, 0), 640, 3, 4, 4),  # where torch's CPU generator would repeat itself
        noise(Draws(1, 1), 640, 3, 4, 4),
        noise(Draws(1, 0), 641, 3, 4, 4),
        noise(Draws(1, 0), 640, 4, 4, 4),
    ]
    assert not any(torch.equal(base, other) for other in others)


def test_parts_of_a_key_do_not_run_together() -> None:
    assert philox(1, 23).integers(1 << 62) != philox(12, 3).integers(1 << 62)
    assert philox("a", "b").integers(1 << 62) != philox("ab").integers(1 << 62)


def test_draws_look_as_they_should() -> None:
    z = noise(Draws(0, 0), 0, 0, 1000, 100)
    assert z.dtype == torch.float32
    assert abs(z.mean().item()) < 0.02
    assert abs(z.std().item() - 1) < 0.02
    assert abs(Draws(0, 0).flips(0, 0, 10_000).float().mean().item() - 0.5) < 0.02


def test_the_values_are_those_of_always() -> None:
    """A NumPy whose Philox or ziggurat changed would change every run: constraints.txt would have to say so."""
    values = noise(Draws(7, 0), 128, 1, 1, 3)[0].tolist()
    assert values == GOLDEN, values


GOLDEN = [1.4094280004501343, 0.22177354991436005, 0.32826468348503113]
