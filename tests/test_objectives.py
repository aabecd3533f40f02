"""Each loss equals its closed form on three logits."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.losses.objectives import OBJECTIVES

REAL, FAKE = (0.5, -1.0, 2.0), (-0.3, 1.5, 0.0)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def contrast(high: tuple[float, ...], low: tuple[float, ...]) -> float:
    of_high = [math.log(1 + sum(math.exp(x - h) for x in low)) for h in high]
    of_low = [math.log(1 + sum(math.exp(x - h) for h in high)) for x in low]
    return mean(of_high) + mean(of_low)


CLOSED_FORMS = {
    "non-saturating": (
        -mean([log_sigmoid(r) for r in REAL]) - mean([log_sigmoid(-f) for f in FAKE]),
        -mean([log_sigmoid(f) for f in FAKE]),
    ),
    "least-squares": (
        0.5 * mean([(r - 1) ** 2 for r in REAL]) + 0.5 * mean([f**2 for f in FAKE]),
        0.5 * mean([(f - 1) ** 2 for f in FAKE]),
    ),
    "minimax": (
        -mean([log_sigmoid(r) for r in REAL]) - mean([log_sigmoid(-f) for f in FAKE]),
        mean([log_sigmoid(-f) for f in FAKE]),
    ),
    "wasserstein": (mean(list(FAKE)) - mean(list(REAL)), -mean(list(FAKE))),
    "relativistic-average": (
        -mean([log_sigmoid(r - mean(list(FAKE))) for r in REAL])
        - mean([log_sigmoid(mean(list(REAL)) - f) for f in FAKE]),
        -mean([log_sigmoid(f - mean(list(REAL))) for f in FAKE])
        - mean([log_sigmoid(mean(list(FAKE)) - r) for r in REAL]),
    ),
    "relativistic-pairing": (
        -mean([log_sigmoid(r - f) for r, f in zip(REAL, FAKE, strict=True)]),
        -mean([log_sigmoid(f - r) for r, f in zip(REAL, FAKE, strict=True)]),
    ),
    "relativistic-hinge": (
        mean([max(0.0, 1 - (r - mean(list(FAKE)))) for r in REAL])
        + mean([max(0.0, 1 + (f - mean(list(REAL)))) for f in FAKE]),
        mean([max(0.0, 1 + (r - mean(list(FAKE)))) for r in REAL])
        + mean([max(0.0, 1 - (f - mean(list(REAL)))) for f in FAKE]),
    ),
    "dual-contrastive": (contrast(REAL, FAKE), contrast(FAKE, REAL)),
    "hinge": (mean([max(0, 1 - r) for r in REAL]) + mean([max(0, 1 + f) for f in FAKE]), -mean(list(FAKE))),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_equal_their_closed_forms(name: str) -> None:
    objective = OBJECTIVES[name]
    real, fake = (torch.tensor(logits, dtype=torch.float64) for logits in (REAL, FAKE))
    discriminator, generator = CLOSED_FORMS[name]
    assert objective.discriminator(real, fake).item() == pytest.approx(discriminator, abs=1e-12)
    assert objective.generator(fake, lambda: real).item() == pytest.approx(generator, abs=1e-12)
