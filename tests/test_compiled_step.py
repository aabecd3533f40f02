"""Compiled networks in a step: the numbers of those that are not, and no second derivatives of what is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.made_batches import made_batches
from tests.zoo_cases import small
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.distributed.world import World
from trainer.gan import network_update
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.losses.penalties import Penalties
from trainer.losses.penalties.base import Weighted
from trainer.networks.base import Discriminator, Generator

TWICE = ("r1", "r2", "wgan_gp", "dragan", "path_length")
SMALL = small(recipe_config("dcgan-32"))
BASE = replace(SMALL, batch_size=8, micro_batch_size=4, network=replace(SMALL.network, size=16))
STEPS = 3


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[type]]:
    """Compile by torch's ahead-of-time autograd, without inductor, and tell of each compiled pass."""
    compile_really, made = torch.compile, list[type]()

    def compile(network: nn.Module) -> Any:
        compiled: Any = compile_really(network, backend="aot_eager")

        def call(*args: Any) -> Any:
            made.append(Generator if isinstance(network, Generator) else Discriminator)
            return compiled(*args)

        return call

    monkeypatch.setattr(torch, "compile", compile)
    yield made
    torch.compiler.reset()


def with_penalty(name: str, every: int = 1) -> Config:
    return replace(BASE, penalties=Penalties(**{name: Weighted(0.5, every=every)}))


def take_steps(config: Config) -> list[dict[str, float]]:
    torch.set_num_threads(1)
    state = create_state(config, "data", torch.device("cpu"))
    step = assemble_step(config, state, reduce_exactly(config, World()), nullcontext)
    rows = [step([made_batches(config, images_seen=k * config.step_images)], lambda: False) for k in range(STEPS)]
    return [{name: float(value) for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("name", TWICE)
def test_gradient_penalties_go_with_compiled_networks(name: str, calls: list[type]) -> None:
    config = with_penalty(name)
    plain = take_steps(config)
    assert not calls
    compiled = take_steps(replace(config, compile=True))
    for expected, found in zip(plain, compiled, strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    # A step: G for D's fakes in each of two micro-batches, and again for its own update; D on two sides in each,
    # unless the penalty differentiates these passes.
    assert calls.count(Generator) == 4 * STEPS
    assert calls.count(Discriminator) == (0 if name in ("r1", "r2") else 4) * STEPS


def test_a_lazy_penalty_leaves_the_updates_between_compiled(calls: list[type]) -> None:
    take_steps(replace(with_penalty("r1", every=3), compile=True))
    assert calls.count(Discriminator) == 4 * (STEPS - 1)


def test_a_second_derivative_of_what_is_compiled_is_torchs_error(
    calls: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `NetworkUpdate.called` is for."""
    monkeypatch.setattr(network_update.NetworkUpdate, "called", lambda self, against: self.reduction.network)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        take_steps(replace(with_penalty("r1"), compile=True))
