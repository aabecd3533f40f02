"""What D is shown, and the probability behind it, against a direct simulation."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.made_batches import made_batches
from trainer.augment.base import AugmentSettings
from trainer.augment.pipeline import SIGNS, AugmentPipeline, P
from trainer.config.config import Config
from trainer.core.randomness import philox
from trainer.core.running_scalars import RunningScalars, finite_only
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.fingerprint import fingerprint
from trainer.gan.state import TrainState
from trainer.gan.step import GanStep
from trainer.networks.network_settings import NetworkSettings

BATCH = 4
# Powers of two, so that float32 is exact: p moves by 1/64 every four updates.
ADA = AugmentSettings(kind="ada", target=0.5, speed_images=1024, interval=4)


def disguise(settings: AugmentSettings, decay_images: int = 0) -> AugmentPipeline:
    return AugmentPipeline(settings, (3, 8, 8), decay_images, BATCH)


def memory_of(shown: AugmentPipeline) -> RunningScalars:
    return {name: torch.tensor(value) for name, value in shown.initial_scalars().items()}


def path(settings: AugmentSettings, signs: list[float], decay_images: int = 0) -> list[float]:
    """p after each update."""
    shown = disguise(settings, decay_images)
    running_scalars, values = memory_of(shown), []
    for k, sign in enumerate(signs):
        shown.update_p(running_scalars, torch.tensor(sign), k * BATCH)
        values.append(running_scalars[P].item())
    return values


# The controller


def test_p_follows_a_direct_simulation() -> None:
    """Over 1,000 updates that reach both ends, and with ties, at which p stays."""
    rng = philox("signs")
    bias = [0.5] * 50 + [1.0] * 450 + [0.0] * 500
    signs = [max(-1.0, min(1.0, b + float(rng.integers(-4, 5)) / 8)) for b in bias]
    expected, p = [], 0.0
    for k in range(1000):
        if k % 4 == 3:
            mean = sum(signs[k - 3 : k + 1]) / 4
            p = min(1.0, max(0.0, p + (mean > 0.5) / 64 - (mean < 0.5) / 64))
        expected.append(p)
    assert path(ADA, signs) == expected
    assert {0.0, 1.0} < set(expected)
    assert any(expected[k] == expected[k - 4] not in (0.0, 1.0) for k in range(7, 1000, 4))


def test_p_goes_from_zero_to_one_in_exactly_speed_images() -> None:
    values = path(ADA, [1.0] * 300)
    assert values.index(1.0) == 1024 // BATCH - 1
    assert max(values) == 1.0
    assert [k for k in range(1, 255) if values[k] != values[k - 1]] == list(range(3, 255, 4))
    assert path(replace(ADA, p=1.0), [0.0] * 300).index(0.0) == 1024 // BATCH - 1


def test_p_goes_on_after_a_resume_as_if_there_were_none() -> None:
    """What it needs besides the running_scalars is the number of pictures seen: here in the midst of an interval."""
    signs = [0.9, -0.2, 1.0, 0.8] * 3
    shown = disguise(ADA)
    running_scalars = memory_of(shown)
    for k in range(6):
        shown.update_p(running_scalars, torch.tensor(signs[k]), k * BATCH)
    again = disguise(ADA)
    for k in range(6, 12):
        again.update_p(running_scalars, torch.tensor(signs[k]), k * BATCH)
    assert running_scalars[P].item() == path(ADA, signs)[-1] == 3 / 64


def test_a_sign_that_is_not_a_number_does_not_poison() -> None:
    signs = [1.0, math.nan, 1.0, 1.0] * 4
    values = path(ADA, signs)
    assert values == path(ADA, [0.0 if math.isnan(s) else s for s in signs])
    assert values[-1] == 4 / 64


def test_without_adaptation_p_follows_half_a_cosine() -> None:
    settings = replace(ADA, adaptive=False, p=0.2, p_final=0.6)
    values = path(settings, [1.0] * 30, decay_images=80)
    ends = [min(1.0, (k + 1) * BATCH / 80) for k in range(30)]
    assert values == pytest.approx([0.6 - 0.4 * 0.5 * (1 + math.cos(math.pi * t)) for t in ends], abs=1e-6)
    assert values[9] == pytest.approx(0.4)
    assert values[19:] == pytest.approx([0.6] * 11)
    assert path(replace(settings, p_final=None), [1.0] * 9, 80) == pytest.approx([0.2] * 9)


@pytest.mark.parametrize("kind", ["none", "diffaugment"])
def test_what_does_not_follow_p_has_none(kind: str) -> None:
    shown = disguise(AugmentSettings(kind=kind))
    assert shown.initial_scalars() == {}
    assert shown.logged({}) == {}
    shown.update_p({}, torch.tensor(1.0), 0)


# APA


def apa(p: float, kind: str = "none") -> tuple[AugmentPipeline, RunningScalars]:
    shown = disguise(AugmentSettings(kind=kind, apa=True, p=p))
    return shown, memory_of(shown)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(3, 2, 2), (2,)])
def test_apa_shows_fakes_as_reals_with_probability_p(p: float, shape: tuple[int, ...]) -> None:
    """Whole pictures, or points; and only as reals."""
    n = 10_000
    shown, running_scalars = apa(p)
    real, fake = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)), -torch.ones(n, *shape)
    draws = shown.draw(philox("deceive", str(p)), n)
    seen = shown.apa_replace(real, fake, draws, running_scalars)
    assert seen.shape == real.shape
    deceived = (seen == fake).flatten(1).all(1)
    assert torch.equal(seen[deceived], fake[deceived])
    assert torch.equal(seen[~deceived], real[~deceived])
    assert abs(int(deceived.sum()) - n * p) <= 5 * math.sqrt(n * p * (1 - p))
    assert torch.equal(shown(fake, draws, running_scalars), fake)


@pytest.mark.parametrize("kind", ["none", "ada"])
def test_at_p_zero_pictures_are_shown_to_the_bit(kind: str) -> None:
    shown, running_scalars = apa(0.0, kind)
    x = torch.from_numpy(philox("pictures").uniform(-1, 1, (16, 3, 8, 8))).float()
    draws = shown.draw(philox("zero"), 16)
    assert torch.equal(shown.apa_replace(x, -x, draws, running_scalars), x)
    assert torch.equal(shown(x, draws, running_scalars), x)
    running_scalars[P].fill_(1.0)
    assert not torch.equal(shown.apa_replace(x, -x, draws, running_scalars), x)


def test_without_apa_no_fake_is_shown_as_real() -> None:
    shown = disguise(ADA)
    assert "deceive" not in shown.draw(philox("none"), 4)
    nan = torch.full((4, 3, 8, 8), math.nan)
    assert (
        shown.apa_replace(torch.zeros_like(nan), nan, shown.draw(philox("none"), 4), memory_of(shown)).isfinite().all()
    )


# In training


CONFIG = Config(
    batch_size=12,
    micro_batch_size=4,
    mixed_precision="no",
    network=NetworkSettings(size=16, z_dim=8, g_channels=6, d_channels=6),
    augment=AugmentSettings(kind="ada", apa=True, p=0.25, target=-1.0, speed_images=24, interval=1),
)


def make(config: Config = CONFIG) -> tuple[TrainState, GanStep]:
    state = create_state(config, "data", torch.device("cpu"))
    return state, assemble_step(config, state, reduce_exactly(config, World()), nullcontext)


def never() -> bool:
    return False


def test_p_is_part_of_the_state() -> None:
    state, step = make()
    assert {name: value.item() for name, value in state.running_scalars.items()} == {P: 0.25, SIGNS: 0.0}
    scalars = step([made_batches(CONFIG)], never)
    assert (
        scalars[P].item() == state.running_scalars[P].item() == 0.75
    )  # half of the way from 0 to 1 in half of the pictures
    tensors = {name: tensor.clone() for name, tensor in state.tensors().items()}
    for name in (f"running_scalars.{P}", f"running_scalars.{SIGNS}"):
        changed = tensors | {name: tensors[name] + 1}
        assert fingerprint(changed, {}) != fingerprint(tensors, {})
    other, _ = make()
    live = other.running_scalars[P]
    other.load(tensors, state.scalars(), "here")
    assert other.running_scalars[P] is live
    assert live.item() == 0.75
    assert fingerprint(other.tensors(), {}) == fingerprint(tensors, {})


def test_the_step_hands_over_the_mean_sign_of_the_reals() -> None:
    config = replace(CONFIG, augment=replace(CONFIG.augment, apa=False, p=0.0, interval=2, target=0.0))
    state, step = make(config)
    share = made_batches(config)
    with torch.no_grad():
        sign = torch.stack([state.discriminator(b.real, b.label).logits.sign().mean() for b in share]).mean()
    scalars = step([share], never)
    torch.testing.assert_close(state.running_scalars[SIGNS], sign)
    assert "sign_real" not in scalars
    assert 0 < abs(sign) < 1


def test_a_nan_in_training_leaves_p_alone() -> None:
    state, step = make(replace(CONFIG, augment=replace(CONFIG.augment, interval=2)))
    broken = [replace(b, real=b.real * math.nan) for b in made_batches(CONFIG)]
    scalars, _ = step.update_discriminator(broken)
    assert scalars[P] == 0.25
    assert state.running_scalars[SIGNS].isfinite()


def test_memory_undoes_what_is_not_finite() -> None:
    running_scalars: dict[str, Tensor] = {"a": torch.tensor(1.0), "b": torch.tensor(2.0), "c": torch.tensor(3.0)}
    live = dict(running_scalars)
    with finite_only(running_scalars):
        running_scalars["a"].fill_(math.nan)
        running_scalars["b"].fill_(-math.inf)
        running_scalars["c"].fill_(4.0)
    assert {name: value.item() for name, value in running_scalars.items()} == {"a": 1.0, "b": 2.0, "c": 4.0}
    assert all(running_scalars[name] is live[name] for name in running_scalars)
