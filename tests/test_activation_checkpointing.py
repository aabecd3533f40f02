"""Activation checkpointing: the same bits, less memory, and what it is not for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tests.made_batches import made_batches
from tests.zoo_cases import CASES
from trainer.config.config import Config
from trainer.core.fields import Refused, identity_hash
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.fingerprint import fingerprint
from trainer.gan.state import TrainState
from trainer.networks import checkpointing
from trainer.networks.batch_norm import BatchNorm2d
from trainer.networks.batch_statistics import BatchStatistics

pytestmark = pytest.mark.usefixtures("few_layers")

CPU = torch.device("cpu")
# Penalties that differentiate twice, BatchNorm in both networks, spectral norm in both.
ABLE = [
    *("recipe biggan-32", "recipe bcr-32", "recipe sagan-64", "recipe wgan-gp-32", "recipe stylegan2-ada-64"),
    *("recipe fastgan-256", "recipe r3gan-32", "recipe stylegan3-t-256", "normalised and path length"),
]
# All of that in bf16, which is slow where it is emulated.
ABLE_IN_BF16 = ["recipe wgan-gp-32", "recipe fastgan-256", "normalised and path length"]


def trained(config: Config, steps: int = 2) -> tuple[TrainState, list[dict[str, Tensor]]]:
    """Take some steps, and return the state and the scalars of each."""
    state = create_state(config, "", CPU)
    bf16 = partial(torch.autocast, "cpu", torch.bfloat16)
    autocast = bf16 if config.mixed_precision == "bf16" else nullcontext
    step = assemble_step(config, state, reduce_exactly(config, World()), autocast)
    scalars = []
    for _ in range(steps):
        seen = range(state.images_seen, state.images_seen + config.step_images, config.batch_size)
        scalars.append(step([made_batches(config, images_seen=start) for start in seen], lambda: False))
        state.images_seen += config.step_images
    return state, scalars


def with_and_without(case: str, precision: Literal["no", "bf16"]) -> tuple[str, ...]:
    """Return the fingerprints without and with it."""
    config = replace(CASES[case], mixed_precision=precision)
    states = [trained(replace(config, activation_checkpointing=on)) for on in (False, True)]
    for before, after in zip(states[0][1], states[1][1], strict=True):
        assert {name: value.item() for name, value in before.items()} == {name: v.item() for name, v in after.items()}
    return tuple(fingerprint(state.tensors(), state.scalars()) for state, _ in states)


@pytest.mark.parametrize(
    ("case", "precision"), [*((case, "no") for case in ABLE), *((case, "bf16") for case in ABLE_IN_BF16)]
)
def test_the_bits_are_the_same(case: str, precision: Literal["no", "bf16"]) -> None:
    without, with_it = with_and_without(case, precision)
    assert without == with_it


def test_a_pass_that_is_computed_again_and_counts_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing.Replay, "set_layers", lambda *_: None)
    without, with_it = with_and_without("recipe fastgan-256", "no")
    assert without != with_it


@contextlib.contextmanager
def kept(network: nn.Module) -> Iterator[list[int]]:
    """Count the bytes of what autograd keeps inside, besides the network's own tensors: each storage once."""
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    alive: dict[int, Tensor] = {}
    total = [0]

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own:
            alive[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        yield total
    total[0] = sum(t.untyped_storage().nbytes() for t in alive.values())


@pytest.mark.parametrize(
    "case", ["recipe biggan-32", "recipe stylegan2-ada-64", "recipe fastgan-256", "recipe r3gan-32"]
)
def test_less_is_kept(case: str) -> None:
    """Less than half, of a pass of G and of one of D."""
    config = CASES[case]
    state, (batch, *_) = create_state(config, "", CPU), made_batches(config)
    calls = (state.generator, (batch.latent,)), (state.discriminator, (batch.real, batch.label))
    for network, inputs in calls:
        found = []
        for on in (False, True):
            network.checkpointing = on
            with kept(network) as total:
                out = network(*inputs)
            found.append(total[0])
            del out
        assert 0 < found[1] < 0.5 * found[0], (type(network), found)


def test_batch_norm_repeats_without_a_trace() -> None:
    layer = BatchNorm2d(3)
    statistics = BatchStatistics(layer, CPU)
    x = torch.arange(24.0).view(2, 3, 2, 2)
    first, flat = layer(x), statistics.flat.clone()
    layer.repeats = True
    assert torch.equal(layer(x), first)
    assert torch.equal(statistics.flat, flat)
    assert layer.passes == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generator": "sngan"}, "not for the discriminator dcgan"),
        ({"discriminator": "sngan"}, "not for the generator dcgan"),
        ({"generator": "sngan", "discriminator": "sngan", "compile": True}, "does not go with compile"),
    ],
)
def test_what_it_is_not_for_is_refused_by_name(changes: dict[str, object], words: str) -> None:
    with pytest.raises(Refused, match=words):
        replace(Config(activation_checkpointing=True), **changes).check()  # type: ignore[arg-type]


def test_it_is_no_part_of_what_a_run_computes() -> None:
    config = CASES["recipe biggan-32"]
    assert identity_hash(replace(config, activation_checkpointing=True)) == identity_hash(config)
