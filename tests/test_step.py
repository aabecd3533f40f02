"""The step is the algorithm: it equals a plain computation, and touches only what it should."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from tests.made_batches import made_batches
from trainer.config.config import Config
from trainer.config.groups import OptimizerSettings
from trainer.core.fields import Refused
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.fingerprint import fingerprint
from trainer.gan.optimizers import update_average
from trainer.gan.state import TrainState
from trainer.gan.step import GanStep
from trainer.losses.batch import Batch
from trainer.losses.objectives import OBJECTIVES
from trainer.losses.penalties.base import Weighted
from trainer.networks.base import Latent
from trainer.networks.batch_norm import BatchNorm2d
from trainer.networks.network_settings import NetworkSettings

CONFIG = Config(
    batch_size=12,
    micro_batch_size=4,
    mixed_precision="no",
    network=NetworkSettings(size=16, z_dim=8, g_channels=6, d_channels=6),
)


def make(config: Config = CONFIG, scaler: bool = False) -> tuple[TrainState, GanStep]:
    state = create_state(config, "data", torch.device("cpu"))
    state.g_scaler, state.d_scaler = (GradScaler("cpu", enabled=scaler, init_scale=2.0**10) for _ in range(2))
    return state, assemble_step(config, state, reduce_exactly(config, World()), nullcontext)


def batches(config: Config = CONFIG, seed: int = 0, images_seen: int = 0) -> list[Batch]:
    return made_batches(config, seed, images_seen)


def never() -> bool:
    return False


def test_backward_passes_run_in_the_thread_of_the_step() -> None:
    """On a GPU they would run in one of autograd's, whose count of what it has recorded decides orders of additions."""
    config = replace(CONFIG, penalties=replace(CONFIG.penalties, r1=Weighted(1.0)))
    state, step = make(config)
    threaded: list[bool] = []
    for network in (state.generator, state.discriminator):
        next(network.parameters()).register_hook(lambda _: threaded.append(torch._C._is_multithreading_enabled()))
    step([batches(config)], never)
    assert threaded
    assert not any(threaded)
    assert torch._C._is_multithreading_enabled(), "others keep their threads"


def judge(d: nn.Module, batch: Batch) -> torch.Tensor:
    logits: torch.Tensor = d(batch.real, batch.label).logits
    return logits


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_equals_the_plain_algorithm(objective: str) -> None:
    """Written out with torch's own means over micro-batches; tolerances are those of another order of additions."""
    config = replace(CONFIG, objective=objective)
    state, step = make(config)
    g, d = copy.deepcopy(state.generator), copy.deepcopy(state.discriminator)
    share = batches(config)
    scalars = step([share], never)

    loss_of = OBJECTIVES[objective]
    adam = [torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (g, d)]
    losses = [loss_of.discriminator(d(b.real, b.label).logits, d(g(b.latent).detach(), b.label).logits) for b in share]
    torch.stack(losses).mean().backward()
    adam[1].step()
    torch.testing.assert_close(scalars["loss_d"], torch.stack(losses).mean().detach())
    g.zero_grad()
    reals = [partial(judge, d, b) for b in share]
    losses = [loss_of.generator(d(g(b.latent), b.label).logits, real) for b, real in zip(share, reals, strict=True)]
    torch.stack(losses).mean().backward()
    adam[0].step()
    torch.testing.assert_close(scalars["loss_g"], torch.stack(losses).mean().detach(), rtol=1e-4, atol=1e-5)
    norm = torch.nn.utils.get_total_norm([p.grad for p in g.parameters() if p.grad is not None])
    torch.testing.assert_close(scalars["grad_norm_g"], norm, rtol=1e-3, atol=1e-5)
    # Adam's first step is the sign of the gradient times the rate: where a gradient is noise, so is the step.
    for ours, theirs in zip([*state.generator.parameters()], [*g.parameters()], strict=True):
        assert ((ours - theirs).abs() > 1e-5).float().mean() < 0.02
    for ours, theirs in zip([*state.discriminator.parameters()], [*d.parameters()], strict=True):
        assert ((ours - theirs).abs() > 1e-5).float().mean() < 0.02


def test_g_learns_from_the_fakes_of_ds_last_updates() -> None:
    """With three updates of D and two of them for G: the last two, joined micro-batch by micro-batch."""
    config = replace(CONFIG, d_steps=3, g_batches=2, objective="hinge")
    state, step = make(replace(config, optimizer=OptimizerSettings(d_lr=1e-30)))  # D stays what it is
    g, d = copy.deepcopy(state.generator), copy.deepcopy(state.discriminator)
    updates = [batches(config, seed, seed * config.batch_size) for seed in range(3)]
    scalars = step(updates, never)
    losses = []
    for earlier, later in zip(updates[1], updates[2], strict=True):
        latent = Latent.cat([earlier.latent, later.latent])
        losses.append(-d(g(latent), latent.label).logits.mean())
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(scalars["loss_g"], torch.stack(losses).mean().detach(), rtol=1e-4, atol=1e-5)
    norm = torch.nn.utils.get_total_norm([p.grad for p in g.parameters() if p.grad is not None])
    torch.testing.assert_close(scalars["grad_norm_g"], norm, rtol=1e-3, atol=1e-5)


def test_joined_micro_batches_keep_the_draws_that_all_of_them_have() -> None:
    first, last = (batches(CONFIG, seed, seed * 12)[1] for seed in range(2))
    last = replace(last, draws={**last.draws, "path_length": {"noise": torch.ones(4)}})
    joined = Batch.cat([first, last])
    assert (joined.micro_batch, joined.images_seen, len(joined.real)) == (1, 12, 8)
    assert joined.draws.keys() == first.draws.keys()
    assert torch.equal(joined.latent.z, torch.cat([first.latent.z, last.latent.z]))
    assert Batch.join([[last]])[0] is last


def test_each_update_touches_its_own_network_only() -> None:
    state, step = make()
    before = fingerprint(state.generator.state_dict(), {})
    step.update_discriminator(batches())
    assert fingerprint(state.generator.state_dict(), {}) == before
    assert all(p.grad is None for p in state.generator.parameters())
    d_gradients = [p.grad.clone() for p in state.discriminator.parameters() if p.grad is not None]
    before = fingerprint(state.discriminator.state_dict(), {})
    step.update_generator(batches(), None, never)
    assert fingerprint(state.discriminator.state_dict(), {}) == before
    assert all(p.requires_grad for p in state.discriminator.parameters())
    after = [p.grad for p in state.discriminator.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(d_gradients, after, strict=True))


def test_running_statistics_follow_the_stated_rule() -> None:
    """D: the mean over micro-batches of the average of its two passes; G: of the pass that it is judged by."""
    state, step = make()
    g = copy.deepcopy(state.generator).get_submodule("convolutions.0")
    norm = step.g.statistics.layers[0]
    assert isinstance(norm, BatchNorm2d)
    before = norm.running_mean.clone()
    step([batches()], never)
    first = [g(b.latent.z[:, :, None, None]).mean((0, 2, 3)) for b in batches()]
    torch.testing.assert_close(norm.running_mean, before.lerp(torch.stack(first).mean(0).detach(), norm.momentum))


def test_several_updates_of_d_per_update_of_g() -> None:
    state, step = make()
    step([batches(seed=k) for k in range(3)], never)
    steps = {"g": state.g_optimizer, "d": state.d_optimizer}
    counts = {name: {int(s["step"]) for s in optimizer.state.values()} for name, optimizer in steps.items()}
    assert counts == {"g": {1}, "d": {3}}


def test_a_stop_request_travels_with_the_scalars() -> None:
    _, step = make()
    assert step([batches()], never)["stop"].item() == 0
    assert step([batches()], lambda: True)["stop"].item() > 0


def test_an_fp16_overflow_skips_the_update_and_halves_the_scale() -> None:
    state, step = make(scaler=True)
    step([batches()], never)  # the scale exists from the first use on
    before = fingerprint(state.tensors(), {})
    overflow = [replace(b, real=b.real * float("inf")) for b in batches()]
    step.update_discriminator(overflow)
    assert step.d.scaler.get_scale() == 2.0**9
    assert step.g.scaler.get_scale() == 2.0**10
    assert fingerprint(state.tensors(), {}) == before


def test_scaling_by_a_power_of_two_changes_no_bit() -> None:
    plain, scaled = make(), make(scaler=True)
    for _, step in (plain, scaled):
        step([batches()], never)
    assert fingerprint(plain[0].tensors(), {}) == fingerprint(scaled[0].tensors(), {})


def test_scalers_are_part_of_the_state() -> None:
    config = replace(CONFIG, mixed_precision="fp16")
    state = create_state(config, "data", torch.device("cpu"))
    state.g_scaler.scale(torch.zeros(()))
    state.g_scaler.update(new_scale=8.0)
    other = create_state(config, "data", torch.device("cpu"))
    other.load(state.tensors(), state.scalars(), "here")
    other.g_scaler.scale(torch.zeros(()))
    assert other.g_scaler.get_scale() == 8.0


def test_the_average_forgets_half_in_its_half_life() -> None:
    average, weights = [torch.zeros(3)], [torch.ones(3)]
    settings = OptimizerSettings(ema_half_life_images=1000, ema_ramp=0)
    for seen in range(10, 1010, 10):
        update_average(average, weights, 10, seen, settings)
    torch.testing.assert_close(average[0], torch.full((3,), 0.5))
    ramp = OptimizerSettings(ema_half_life_images=1000, ema_ramp=0.05)
    average = [torch.zeros(3)]
    update_average(average, weights, 10, 200, ramp)  # the half-life is 10 pictures yet
    torch.testing.assert_close(average[0], torch.full((3,), 0.5))


def test_state_of_another_kind_is_refused_by_name() -> None:
    state, _ = make()
    other = create_state(replace(CONFIG, seed=1), "data", torch.device("cpu"))
    with pytest.raises(Refused, match="identity"):
        other.load(state.tensors(), state.scalars(), "x")
    with pytest.raises(Refused, match="dataset"):
        state.load(state.tensors(), state.scalars() | {"dataset": "another"}, "x")
    fewer = dict(state.tensors())
    name = fewer.popitem()[0]
    with pytest.raises(Refused, match=name):
        state.load(fewer, state.scalars(), "x")


def test_every_tensor_of_the_state_is_in_the_fingerprint() -> None:
    state, _ = make()
    tensors = state.tensors()
    base = fingerprint(tensors, state.scalars())
    for kind in ("generator.", "discriminator.", "ema.", "g_optimizer.", "d_optimizer."):
        assert any(name.startswith(kind) for name in tensors)
    assert any("running_var" in name for name in tensors)
    for name in tensors:
        changed = tensors | {name: tensors[name] + 1}
        assert fingerprint(changed, state.scalars()) != base, name
    for key in ("images_seen", "rollbacks", "g_scaler"):
        assert fingerprint(tensors, state.scalars() | {key: "other"}) != base
    assert fingerprint(tensors, state.scalars() | {"dataset": "other", "identity": "other"}) == base
