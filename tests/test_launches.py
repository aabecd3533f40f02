"""How much the host has to start for a step, and with which kernels: counted on tensors without data."""

from __future__ import annotations

import math

import pytest
import torch

from bench.launches import EmptyStep, count_launches, counting
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
        models.discriminator(models.augment.blur(batch.real, batch.images_seen), batch.label)
    with counting() as counted:
        empty()
    assert set(counted.kernels) == set(forward.kernels)
    # By area: filters along one axis are long, and no kernel of a second derivative is.
    assert max(math.prod(shape[2:]) for shape, _ in counted.kernels) < 16**2


# What a step of one micro-batch may start, with every penalty due; beside it what it started before operations were
# counted. `python -m bench.launches` prints what it starts now.
BUDGETS = {
    "dcgan-32": 170,  # 247
    "dcgan-64": 203,  # 316
    "dcgan-128": 236,  # 385
    "gan-32": 206,  # 276
    "lsgan-64": 213,  # 326
    "ragan-64": 237,  # 350
    "dragan-64": 554,  # 669
    "pacgan-64": 180,  # 251
    "acgan-64": 333,  # 452
    "can-64": 274,  # 392
    "wgan-gp-32": 1942,  # 2571
    "wgan-gp-64": 3560,  # 8673
    "sngan-32": 1371,  # 2908
    "sngan-64": 1776,  # 4043
    "projection-64": 2155,  # 4619
    "bcr-32": 2388,  # 3933
    "icr-32": 4689,
    "projected-256": 1113,
    "sagan-64": 799,  # 1836
    "sagan-128": 1043,  # 2278
    "biggan-32": 2035,  # 4703
    "biggan-128": 1204,  # 2766
    "biggan-deep-128": 3028,  # not counted then
    "msg-gan-64": 730,
    "unet-128": 1662,  # not counted then
    "lecam-32": 2451,  # 5151
    "diffaugment-32": 2203,  # 4871
    "stylegan2-64": 2038,  # 3827
    "stylegan2-256": 2770,  # 5187
    "stylegan2-ada-64": 2270,  # 4677
    "stylegan2-ada-256": 3002,  # 6037
    "stylegan3-t-256": 1965,  # not counted then
    "stylegan3-r-256": 1988,  # not counted then
    "apa-256": 2679,  # 4844
    "fastgan-256": 1612,  # 3233
    "r3gan-32": 1662,  # 6148
    "r3gan-64": 1867,  # 6601
    "r3gan-256": 2385,  # 7409
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_starts_no_more_than_its_budget(name: str) -> None:
    launches = count_launches(name).operators.total()
    assert launches <= BUDGETS[name]
    assert launches > 0.98 * BUDGETS[name], "the budget can be lowered"
