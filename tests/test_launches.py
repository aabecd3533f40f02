"""How much the host has to start for a step, and with which kernels: counted on tensors without data."""

from __future__ import annotations

import pytest
import torch

from bench.launches import EmptyStep, counting
from trainer.config.recipes import RECIPES

TWICE = [
    name
    for name, recipe in RECIPES.items()
    if any(active.penalty.differentiates_twice for active in recipe.config.penalties.active())
]
"""Recipes with a gradient penalty."""


@pytest.mark.parametrize("name", TWICE)
def test_no_update_has_a_giant_kernel_or_a_loop_over_groups(name: str) -> None:
    """Every convolution of a step, at the recipe's own size, has the shape and the groups of a layer."""
    empty = EmptyStep.of(name, 1)
    batch, models = empty.updates[0][0], empty.step.models
    with torch.no_grad(), counting() as forward:
        models.generator(batch.latent)
        models.discriminator(batch.real, batch.label)
    with counting() as counted:
        empty()
    assert set(counted.kernels) == set(forward.kernels)
    assert max(side for shape, _ in counted.kernels for side in shape[2:]) < 16
