"""Schedules, top-k, packing, the objectives' gradients, and settings that do not go together."""

from __future__ import annotations

import inspect
import math
from contextlib import nullcontext, suppress
from dataclasses import replace
from types import GeneratorType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from tests.made_batches import made_batches
from trainer.augment.base import AugmentSettings
from trainer.config.compatibility import config_problems, penalty_problems, schedule_problems, side_problems
from trainer.config.config import Config
from trainer.config.groups import OptimizerSettings
from trainer.core.fields import Refused
from trainer.core.randomness import philox
from trainer.core.schedules import half_cosine, warm_up
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.optimizers import set_rates
from trainer.gan.state import TrainState
from trainer.gan.step import GanStep
from trainer.losses.objectives import OBJECTIVES, TopK
from trainer.losses.penalties import Penalties
from trainer.losses.penalties.base import Weighted
from trainer.networks import build_discriminator, initialise
from trainer.networks.base import pack_images
from trainer.networks.batch_norm import BatchNorm2d
from trainer.networks.batch_statistics import BatchStatistics
from trainer.networks.network_settings import NetworkSettings

CONFIG = Config(
    batch_size=12,
    micro_batch_size=4,
    mixed_precision="no",
    network=NetworkSettings(size=16, z_dim=8, g_channels=6, d_channels=6),
)


def make(config: Config = CONFIG) -> tuple[TrainState, GanStep]:
    state = create_state(config, "data", torch.device("cpu"))
    return state, assemble_step(config, state, reduce_exactly(config, World()), nullcontext)


def never() -> bool:
    return False


def logits(name: str, n: int) -> Tensor:
    return torch.from_numpy(philox("logits", name).standard_normal(n))


# Closed forms


def test_half_a_cosine() -> None:
    assert half_cosine(3.0, 1.0, 0, 100) == 3.0
    assert half_cosine(3.0, 1.0, 50, 100) == pytest.approx(2.0)
    assert half_cosine(3.0, 1.0, 25, 100) == pytest.approx(2 + math.sqrt(0.5))
    assert half_cosine(3.0, 1.0, 100, 100) == half_cosine(3.0, 1.0, 1000, 100) == 1.0
    assert half_cosine(3.0, None, 50, 100) == half_cosine(3.0, 1.0, 50, 0) == 3.0
    assert half_cosine(3.0, 0.0, 100, 100) == 0.0


def test_warm_up() -> None:
    assert warm_up(0, 0) == warm_up(999, 0) == 1.0
    assert [warm_up(seen, 4) for seen in (0, 1, 2, 3, 4, 99)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert 0 < warm_up(0, 10**9) < 1e-8


SCHEDULED = OptimizerSettings(
    g_lr=1e-4, d_lr=4e-4, beta1=0.3, beta2=0.9, warmup_images=24, decay_images=120, lr_final=0.25, beta2_final=0.99
)


@pytest.mark.parametrize(
    ("images_seen", "share", "beta2"),
    [
        (0, 1 / 24, 0.9),
        (12, 13 / 24 * (0.25 + 0.75 * 0.5 * (1 + math.cos(math.pi / 10))), 0.945 - 0.045 * math.cos(math.pi / 10)),
        (60, 0.625, 0.945),
        (120, 0.25, 0.99),
        (1200, 0.25, 0.99),
    ],
)
def test_the_optimizers_step_with_scheduled_rates(images_seen: int, share: float, beta2: float) -> None:
    config = replace(CONFIG, optimizer=SCHEDULED)
    state, step = make(config)
    step([made_batches(config, images_seen=images_seen)], never)
    for optimizer, lr in ((state.g_optimizer, 1e-4), (state.d_optimizer, 4e-4)):
        (group,) = optimizer.param_groups
        assert group["lr"] == pytest.approx(lr * share, rel=1e-12)
        assert group["betas"] == pytest.approx((0.3, beta2), rel=1e-12)


def test_a_step_moves_weights_by_the_scheduled_rate() -> None:
    """Adam's first step is the learning rate, wherever the gradient is not tiny."""
    config = replace(CONFIG, optimizer=replace(SCHEDULED, eps=1e-20))
    state, step = make(config)
    before = [p.detach().clone() for p in state.discriminator.parameters()]
    step.update_discriminator(made_batches(config, images_seen=60))
    for p, first in zip(state.discriminator.parameters(), before, strict=True):
        assert (p.detach() - first).abs().median().item() == pytest.approx(4e-4 * 0.625, rel=0.01)


def test_without_final_values_nothing_moves() -> None:
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1.0)
    for seen in (0, 50, 10**9):
        set_rates(optimizer, 2e-4, seen, OptimizerSettings(decay_images=100))
        assert optimizer.param_groups[0]["lr"] == 2e-4
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)


# Top-k


def test_the_share_of_the_best_falls_geometrically() -> None:
    top_k, fake = TopK(0.25, 1000), logits("fake", 64)
    lengths = [len(top_k(fake, seen)) for seen in (0, 250, 500, 1000, 9999)]
    assert lengths == [64, round(64 * 0.25**0.25), 32, 16, 16]
    assert torch.equal(top_k(fake, 500), fake.sort(descending=True).values[:32])
    assert len(TopK(0.01, 1)(fake[:4], 9)) == 1  # never none
    assert TopK(1.0, 1)(fake, 9) is fake


def test_only_the_best_fakes_have_a_gradient() -> None:
    fake = logits("fake", 8).requires_grad_()
    OBJECTIVES["non-saturating"].generator(TopK(0.5, 10)(fake, 10), lambda: fake).backward()
    assert fake.grad is not None
    best = fake.detach() >= fake.detach().sort().values[4]
    torch.testing.assert_close(fake.grad, torch.where(best, -(-fake.detach()).sigmoid() / 4, 0.0))


def test_the_step_moves_the_generator_by_the_best_fakes_only() -> None:
    config = replace(CONFIG, top_k=0.25, top_k_images=1)
    state, step = make(config)
    share = made_batches(config, images_seen=12)
    with torch.no_grad():
        best = torch.stack([state.discriminator(state.generator(b.latent), b.label).logits.max() for b in share])
    scalars = step.update_generator(share, None, never)
    torch.testing.assert_close(scalars["loss_g"], F.softplus(-best).mean())


# Packing


def test_neighbours_are_packed() -> None:
    x = torch.arange(6 * 3 * 2 * 2).reshape(6, 3, 2, 2)
    for size in (1, 2, 3):
        packed = pack_images(x, size)
        assert packed.shape == (6 // size, 3 * size, 2, 2)
        for i in range(6):
            first = 3 * (i % size)
            assert torch.equal(packed[i // size, first : first + 3], x[i])
    points = torch.arange(8).reshape(4, 2)
    assert torch.equal(pack_images(points, 2), points.reshape(2, 4))


@pytest.mark.parametrize("name", ["dcgan", "sngan"])
def test_a_packed_discriminator_judges_packs(name: str) -> None:
    settings = NetworkSettings(size=32, d_channels=4, pack=2, d_batch_norm=False)
    d = build_discriminator(name, settings)
    initialise(d, 0, "discriminator")
    x = torch.from_numpy(philox("packs").uniform(-1, 1, (6, 3, 32, 32))).float()
    label = torch.full((6,), -1)
    first = d(x, label).logits
    assert first.shape == (3,)
    x[3] = 0
    moved = d(x, label).logits != first
    assert moved.tolist() == [False, True, False]


def test_statistics_and_losses_of_packs() -> None:
    """BatchNorm's statistics are over the packs; scalars are means over them."""
    config = replace(CONFIG, network=replace(CONFIG.network, pack=2))
    state, step = make(config)
    share = made_batches(config)
    d = build_discriminator("dcgan", config.network)
    d.load_state_dict(state.discriminator.state_dict())
    statistics = BatchStatistics(d, torch.device("cpu"))
    flats, real_means = [], []
    for b in share:
        statistics.restart()
        real = d(b.real, b.label).logits
        assert len(real) == config.micro_batch_size // 2
        d(state.generator(b.latent).detach(), b.label)
        flats.append(statistics.flat.clone())
        real_means.append(real.mean().detach())
    norm = step.d.statistics.layers[0]
    assert isinstance(norm, BatchNorm2d)
    before = norm.running_mean.clone()
    scalars, _ = step.update_discriminator(share)
    torch.testing.assert_close(scalars["logits_real"], torch.stack(real_means).mean(), rtol=1e-4, atol=1e-6)
    mean = statistics.views(torch.stack(flats).mean(0))[0][0]
    torch.testing.assert_close(norm.running_mean, before.lerp(mean, 0.1))


# Objectives


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_of_objectives_equal_finite_differences(name: str) -> None:
    objective = OBJECTIVES[name]
    real, fake = logits("real", 6).requires_grad_(), logits("fake", 6).requires_grad_()
    assert gradcheck(objective.discriminator, (real, fake))
    assert gradcheck(lambda f, r: objective.generator(f, lambda: r), (fake, real))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_both_players_move_the_logits_apart_and_together(name: str) -> None:
    """Downhill: D lifts reals and lowers fakes; G lifts fakes."""
    objective = OBJECTIVES[name]
    real, fake = ((0.5 + 0.1 * logits(side, 6)).requires_grad_() for side in ("real", "fake"))  # within (0, 1)
    by_real, by_fake = torch.autograd.grad(objective.discriminator(real, fake), (real, fake))
    (for_g,) = torch.autograd.grad(objective.generator(fake, lambda: real), fake)
    assert by_real.sum() < 0 < by_fake.sum()
    assert for_g.sum() < 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_only_relative_objectives_ignore_a_constant(name: str) -> None:
    objective, real, fake = OBJECTIVES[name], logits("real", 6), logits("fake", 6)
    for_d = objective.discriminator(real + 3, fake + 3) - objective.discriminator(real, fake)
    for_g = objective.generator(fake + 3, lambda: real + 3) - objective.generator(fake, lambda: real)
    relativistic = name.startswith(("relativistic", "dual"))
    assert (abs(for_g.item()) < 1e-12) is relativistic
    assert (abs(for_d.item()) < 1e-12) is (relativistic or name == "wasserstein")


def test_pairing_compares_picture_with_picture() -> None:
    for name, objective in OBJECTIVES.items():
        real, fake = logits("real", 6), logits("fake", 6)
        same = objective.discriminator(real.flip(0), fake) - objective.discriminator(real, fake)
        assert (abs(same.item()) > 1e-6) is objective.pairs, name


# What does not go together

POINTS: dict[str, Any] = {"generator": "mlp", "discriminator": "mlp", "network": NetworkSettings(size=0)}
ALL_SIDES = {"generator": "msg-gan", "discriminator": "msg-gan"}
PARTS: list[tuple[dict[str, Any], str]] = [
    (
        {
            "network": NetworkSettings(
                d_head="classifier", label_columns="style,genre", label_kinds="2 classes, 3 classes"
            ),
            "penalties": Penalties(style=Weighted(1.0)),
        },
        "network.label_columns must name one column, but is style,genre",
    ),
    ({"generator": "dcgam"}, "there is no generator 'dcgam'; did you mean 'dcgan'?"),
    ({"generator": "???"}, "there is no generator '???'; there are dcgan"),
    ({"discriminator": "dcgam"}, "there is no discriminator 'dcgam'; did you mean 'dcgan'?"),
    ({"objective": "hing"}, "there is no objective 'hing'; did you mean 'hinge'?"),
    ({"augment": AugmentSettings(kind="adda")}, "there is no augmentation 'adda'; did you mean 'ada'?"),
    ({"generator": "dcgan", "discriminator": "r3gan", "network": NetworkSettings(size=8)}, "for dcgan, but is 8"),
    ({"generator": "r3gan", "discriminator": "dcgan", "network": NetworkSettings(size=8)}, "for dcgan, but is 8"),
    ({"augment": AugmentSettings(kind="ada", pipe="bx")}, "augment.pipe has no part 'x'"),
    ({"top_k": 0.0}, "top_k must be in (0, 1], but is 0"),
    ({"top_k": 1.5}, "top_k must be in (0, 1]"),
    ({"top_k_images": 0}, "top_k_images must be positive, but is 0"),
    ({"top_k": 0.5, "objective": "relativistic-pairing"}, "top_k below 1 does not go with objective relativistic-pa"),
    (POINTS | {"augment": AugmentSettings(kind="ada")}, "augment.kind ada is for pictures"),
    (POINTS | {"penalties": Penalties(bcr=Weighted(1.0))}, "penalties.bcr is for pictures"),
    ({"penalties": Penalties(r1=Weighted(1.0, 0.5))}, "penalties.r1.final is reached after optimizer.decay_images"),
    ({"augment": AugmentSettings(kind="ada", p_final=0.5, adaptive=False)}, "augment.p_final is reached after"),
    (
        {"augment": AugmentSettings(kind="ada", p_final=0.5), "optimizer": OptimizerSettings(decay_images=9)},
        "augment.p_final wants",
    ),
    ({"generator": "mlp", "micro_batch_size": 1}, "generator mlp wants a micro_batch_size of at least 2"),
    ({"network": NetworkSettings(mbstd_group=3)}, "network.mbstd_group 3 must be at least 2, and divide the 32 packs"),
    ({"network": NetworkSettings(attention=16)}, "network.attention is of biggan, biggan-deep, sagan: neither"),
    ({"augment": AugmentSettings(blur_sigma=2.0)}, "augment.blur_sigma fades over augment.blur_images: set both"),
    (POINTS | {"augment": AugmentSettings(blur_sigma=2.0, blur_images=9)}, "augment.blur_sigma is for pictures"),
    (
        {"penalties": Penalties(cutmix=Weighted(1.0))},
        "wants a discriminator that judges pixels, such as unet, not dcgan",
    ),
    ({"generator": "msg-gan"}, "generator msg-gan makes pictures of all sides: it wants --discriminator msg-gan"),
    (ALL_SIDES | {"augment": AugmentSettings(kind="ada")}, "augmentations are of one picture, and generator msg-gan"),
    (ALL_SIDES | {"penalties": Penalties(wgan_gp=Weighted(1.0))}, "penalties.wgan_gp is of one picture"),
    ({"augment": AugmentSettings(p=0.5)}, "augment.p does nothing for augment.kind none"),
    ({"augment": AugmentSettings(kind="ada", adaptive=False)}, "augment.p is 0 and stays there"),
    ({"augment": AugmentSettings(kind="ada", pipe="bb")}, "augment.pipe names 'b' twice"),
    ({"network": NetworkSettings(d_head="classifier")}, "network.d_head classifier learns nothing"),
    (
        {
            "network": NetworkSettings(d_head="classifier"),
            "penalties": Penalties(style=Weighted(1.0, None, 2)),
            "reduction": "ddp",
        },
        "penalties.classes_d or penalties.style in every update",
    ),
    ({"reduction": "ddp", "compile": True}, "compile does not go with reduction ddp"),
    ({"optimizer": OptimizerSettings(lr_final=0.5)}, "optimizer.lr_final is reached after optimizer.decay_images"),
    ({"optimizer": OptimizerSettings(beta2_final=0.5)}, "optimizer.beta2_final is reached after"),
    ({"optimizer": OptimizerSettings(ema_half_life_final=9.0)}, "optimizer.ema_half_life_final is reached after"),
    (
        {"penalties": Penalties(feature_matching=Weighted(1.0)), "discriminator": "projected"},
        "penalties.feature_matching is about the features of one logit, and projected has several",
    ),
    ({"top_k": 0.5, "discriminator": "projected"}, "top_k below 1 does not go with the discriminator projected"),
    ({"g_batches": 2}, "g_batches must be at most d_steps, the discriminator's updates in a step, which is 1, but"),
    (
        {"g_batches": 2, "d_steps": 2, "generator": "stylegan2", "penalties": Penalties(path_length=Weighted(1.0))},
        "penalties.path_length goes with g_batches 1",
    ),
    (
        {"discriminator": "fastgan", "reduction": "ddp"},
        "reduction ddp wants every weight in every loss: penalties.reconstruction",
    ),
    ({"network": NetworkSettings(g_tanh=False)}, "network.g_tanh is of the generator fastgan: dcgan ends as its paper"),
    ({"network": NetworkSettings(pack=3)}, "network.pack 3 does not divide micro_batch_size 32"),
    *(
        ({"penalties": Penalties(**{name: Weighted(1.0)})}, f"penalties.{name} wants a discriminator that guesses")
        for name in ("classes_d", "classes_g", "style", "ambiguity")
    ),
    ({"penalties": Penalties(reconstruction=Weighted(1.0))}, "wants a discriminator that rebuilds pictures, not dcgan"),
    ({"cuda_graphs": "on", "compile": True}, "cuda_graphs on does not go with compile"),
    ({"measure_on": "gpu"}, "measure_on must be auto, in-line, cpu or cuda:N, but is 'gpu'"),
]

SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"penalties": Penalties(r1=Weighted(-1.0))}, "penalties.r1.weight must not be negative, but is -1"),
    ({"penalties": Penalties(bcr=Weighted(1.0, -1.0))}, "penalties.bcr.final must not be negative, but is -1"),
    ({"penalties": Penalties(r2=Weighted(1.0, None, 0))}, "penalties.r2.every must be positive, but is 0"),
    ({"optimizer": OptimizerSettings(g_lr=math.nan)}, "optimizer.g_lr must be a finite number, but is nan"),
    ({"penalties": Penalties(r1=Weighted(math.inf))}, "penalties.r1.weight must be a finite number, but is inf"),
    ({"augment": AugmentSettings(p=1.5)}, "augment.p must be in [0, 1], but is 1.5"),
    ({"augment": AugmentSettings(p_final=-0.5)}, "augment.p_final must be in [0, 1], but is -0.5"),
    ({"augment": AugmentSettings(interval=0)}, "augment.interval must be positive, but is 0"),
    ({"augment": AugmentSettings(speed_images=0)}, "augment.speed_images must be positive, but is 0"),
    ({"augment": AugmentSettings(target=2.0)}, "augment.target must be in [-1, 1], but is 2"),
    ({"optimizer": OptimizerSettings(d_lr=0.0)}, "optimizer.d_lr must be positive, but is 0"),
    ({"optimizer": OptimizerSettings(beta2_final=1.0)}, "optimizer.beta2_final must be in [0, 1), but is 1"),
    ({"optimizer": OptimizerSettings(warmup_images=-1)}, "optimizer.warmup_images must not be negative, but is -1"),
    ({"optimizer": OptimizerSettings(lr_final=-0.1)}, "optimizer.lr_final must not be negative, but is -0.1"),
    ({"optimizer": OptimizerSettings(ema_ramp=-0.1)}, "optimizer.ema_ramp must not be negative"),
    ({"network": NetworkSettings(pack=2, g_conditional=True)}, "network.pack above 1 does not go with classes"),
]


@pytest.mark.parametrize(("changes", "message"), [*PARTS, *SETTINGS])
def test_impossible_settings_are_refused_with_one_message(changes: dict[str, Any], message: str) -> None:
    Config().check()
    with pytest.raises(Refused) as refused:
        replace(Config(), **changes).check()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_refusal_of_parts_is_tested() -> None:
    """Each line that yields a problem is reached by one of the cases above."""
    missing, checks = set(), (config_problems, schedule_problems, penalty_problems, side_problems)
    for check in checks:
        lines, first = inspect.getsourcelines(check)
        missing |= {
            first + k for k, line in enumerate(lines) if line.strip().startswith("yield ") and "from" not in line
        }
    for changes, _ in PARTS:
        for check in checks:
            found = check(replace(Config(), **changes))
            assert isinstance(found, GeneratorType)
            with suppress(Refused):
                for _ in found:
                    missing.discard(found.gi_frame.f_lineno if found.gi_frame else 0)
    assert not missing


@pytest.mark.parametrize(
    "changes",
    [
        {"top_k": 0.5, "objective": "hinge"},
        {"network": NetworkSettings(pack=4)},
        {"network": NetworkSettings(d_head="classifier"), "penalties": Penalties(classes_d=Weighted(1.0))},
        {"compile": True, "penalties": Penalties(bcr=Weighted(1.0), lecam=Weighted(1.0))},
        *(
            {"compile": True, "penalties": Penalties(**{name: Weighted(1.0)})}
            for name in ("r1", "r2", "wgan_gp", "dragan", "path_length")
        ),
    ],
)
def test_what_goes_together_is_let_through(changes: dict[str, Any]) -> None:
    replace(Config(), **changes).check()
