"""What the collapse monitor sees, what it makes of it, and what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from shards.dataset.stream import Reader, Samples
from trainer.collapse.collapse_metrics import CollapseMetrics
from trainer.collapse.monitor_state import BOUNDS, GRACE_IMAGES, Health, MonitorState, alarm_reasons
from trainer.collapse.rollback_changes import CHANGES_BY_NAME, apply_change, apply_rollbacks, fit_state, next_change
from trainer.config.config import Config
from trainer.config.groups import CHANGES, LEAST_IMAGES, CollapseSettings
from trainer.config.recipes import recipe_config
from trainer.core.randomness import philox
from trainer.gan.assembly import create_state
from trainer.gan.state import TrainState
from trainer.losses.penalties import Penalties
from trainer.losses.penalties.base import Weighted
from trainer.networks.network_settings import NetworkSettings
from trainer.runs.run_folder import RunFolder
from trainer.sampling.sampler import Images
from trainer.training.sample_grids import Request, SampleGrids

NUMBER = 128
GOOD = {"diversity": 0.9, "similarity": 0.05, "coverage": 0.9, "distance_to_data": 1.0}
BAD = {"diversity": 0.1, "similarity": 0.6, "coverage": 0.05, "distance_to_data": 1.0}
SCALARS = {
    "loss_d": 1.0,
    "loss_g": 1.0,
    "grad_norm_d": 1.0,
    "grad_norm_g": 1.0,
    "logits_real": 1.0,
    "logits_fake": -1.0,
}


def blobs(number: int, key: str) -> Images:
    """Pictures of one blob each, anywhere and of any colour; the class is its side."""
    rng = philox("blobs", key)
    place, colour = rng.uniform(8, 24, (number, 2, 1, 1)), rng.uniform(0, 255, (number, 1, 1, 3))
    rows, columns = np.mgrid[:32, :32]
    weight = np.exp(-((rows - place[:, 0]) ** 2 + (columns - place[:, 1]) ** 2) / 40)[..., None]
    pictures: Images = (255 * (1 - weight) + colour * weight).astype(np.uint8)
    return pictures


@pytest.fixture(scope="module")
def real() -> Images:
    return blobs(2 * NUMBER, "real")


@pytest.fixture(scope="module")
def witness(real: Images) -> CollapseMetrics:
    return CollapseMetrics(real, np.arange(2 * NUMBER) % 4)


def test_pictures_like_the_data_give_the_values_in_brackets(witness: CollapseMetrics) -> None:
    seen = witness(blobs(NUMBER, "as good"))
    assert seen["diversity"] == pytest.approx(1, abs=0.15)
    assert seen["similarity"] == pytest.approx(0, abs=0.1)
    assert seen["coverage"] == pytest.approx(1, abs=0.15)
    assert seen["distance_to_data"] == pytest.approx(1, abs=0.2)
    assert seen["classes"] < 0.2


def test_the_datas_own_pictures_give_them_exactly(witness: CollapseMetrics, real: Images) -> None:
    seen = witness(real[NUMBER:])
    assert (seen["diversity"], seen["similarity"], seen["coverage"], seen["distance_to_data"]) == (1, 0, 1, 1)


@pytest.mark.parametrize("modes", [1, 4, 16])
def test_few_modes_are_seen_as_few(witness: CollapseMetrics, modes: int) -> None:
    few = np.resize(blobs(modes, "modes"), (NUMBER, 32, 32, 3))
    seen = witness(few)
    assert seen["diversity"] * witness.own_variety <= modes + 1e-6
    assert seen["similarity"] > (0.3 if modes == 1 else 0)
    assert seen["coverage"] < 0.25 + 0.03 * modes
    if modes == 1:
        assert seen["diversity"] * witness.own_variety == pytest.approx(1, abs=1e-6)
        assert seen["classes"] == pytest.approx(0.75)


def test_noise_is_strange(witness: CollapseMetrics) -> None:
    noise = philox("noise").integers(0, 256, (NUMBER, 32, 32, 3), dtype=np.uint8)
    assert witness(noise)["distance_to_data"] > 3


def test_the_order_of_pictures_does_not_matter(witness: CollapseMetrics, real: Images) -> None:
    fake = blobs(NUMBER, "order")
    for name, value in witness(fake[::-1].copy()).items():
        if name != "similarity":  # its pairs are neighbours
            assert value == pytest.approx(witness(fake)[name], rel=1e-9), name


def watch(looks: Sequence[dict[str, float]], logistic: bool = True, first: int = 32_000) -> list[Health]:
    """Return the states after looks, each of which follows ten steps."""
    record, states = MonitorState(), []
    for k, seen in enumerate(looks):
        for _ in range(10):
            record = record.add_step(SCALARS)
        record, _ = record.add_measurement(seen, first * (k + 1), logistic)
        states.append(Health(record.health))
    return states


def test_a_fall_from_its_own_best_is_a_collapse_at_the_second_look() -> None:
    assert watch([GOOD, GOOD, BAD, BAD, BAD]) == [
        Health.HEALTHY,
        Health.HEALTHY,
        Health.WARNING,
        *[Health.COLLAPSED] * 2,
    ]


def test_a_single_bad_look_is_a_warning_only() -> None:
    assert watch([GOOD, GOOD, BAD, GOOD, BAD, GOOD]) == [
        Health.HEALTHY,
        Health.HEALTHY,
        *[Health.WARNING, Health.HEALTHY] * 2,
    ]


def test_a_single_good_look_is_no_best() -> None:
    weak = {**GOOD, "diversity": 0.1, "coverage": 0.1, "similarity": 0.5}
    assert watch([weak, GOOD, weak, weak]) == [Health.HEALTHY] * 4
    assert watch([GOOD, weak, weak]) == [Health.HEALTHY] * 3, "the first look is one look, too"


def test_a_young_generator_may_lack_variety_and_an_old_one_may_not() -> None:
    poor = {**BAD, "diversity": 0.005}
    assert set(watch([poor] * 5, first=GRACE_IMAGES // 5 - 1)) == {Health.HEALTHY}
    assert watch([poor] * 5, first=GRACE_IMAGES)[-1] is Health.COLLAPSED


def test_strange_pictures_and_growing_losses_are_a_divergence() -> None:
    assert watch([GOOD, GOOD, *[{**GOOD, "distance_to_data": 3.0}] * 2])[-1] is Health.DIVERGED
    record = MonitorState()
    for k, size in enumerate((1.0, 1.0, 1e4, 1e4)):
        record = record.add_step({**SCALARS, "grad_norm_d": size})
        record, evidence = record.add_measurement(GOOD, 32_000 * k, logistic=True)
    assert record.health is Health.DIVERGED
    assert any("grown" in words for words in alarm_reasons(evidence, 32_000, 0.9))


def test_two_bad_signs_of_divergence_are_a_divergence() -> None:
    record = MonitorState()
    for size, distance_to_data in ((1.0, 1.0), (1.0, 1.0), (20.0, 1.5), (20.0, 1.5)):
        record = record.add_step({**SCALARS, "grad_norm_d": size})
        record, evidence = record.add_measurement({**GOOD, "distance_to_data": distance_to_data}, 32_000, logistic=True)
    assert evidence["growth"] < BOUNDS["growth"].alarm
    assert record.health is Health.DIVERGED


def test_an_overflow_of_fp16_is_no_step() -> None:
    """The scaler looks for larger scales all the time."""
    record = MonitorState().add_step(SCALARS)
    assert record.add_step({**SCALARS, "grad_norm_g": float("inf")}) == record
    assert record.add_step({**SCALARS, "grad_norm_d": float("nan")}) == record


def test_saturation_alone_is_no_reason_not_to_go_back_there() -> None:
    certain = {**SCALARS, "logits_real": 10.0, "logits_fake": -10.0}
    saturated, _ = MonitorState().add_step(certain).add_measurement(GOOD, 32_000, logistic=True)
    strange, _ = (
        MonitorState().add_step(SCALARS).add_measurement({**GOOD, "distance_to_data": 1.5}, 32_000, logistic=True)
    )
    assert (saturated.health, saturated.sound) == (Health.WARNING, True)
    assert (strange.health, strange.sound) == (Health.WARNING, False)


@pytest.mark.parametrize("number", [LEAST_IMAGES // 2, 20])
def test_little_data_is_enough_to_look_at(number: int) -> None:
    seen = CollapseMetrics(blobs(2 * number, "little"), np.zeros(2 * number, int))(blobs(number, "fakes"))
    assert all(np.isfinite(value) for value in seen.values())


def test_large_pictures_are_looked_at_at_64_pixels() -> None:
    real = blobs(2 * NUMBER, "large")
    large = real.repeat(4, 1).repeat(4, 2)
    medium = real.repeat(2, 1).repeat(2, 2)
    labels = np.zeros(2 * NUMBER, int)
    fake = blobs(NUMBER, "large fakes")
    ways = [
        CollapseMetrics(x, labels)(fake.repeat(times, 1).repeat(times, 2)) for x, times in ((large, 4), (medium, 2))
    ]
    assert ways[0] == ways[1]


def test_saturation_counts_only_where_logits_are_log_odds() -> None:
    certain = {**SCALARS, "logits_real": 10.0, "logits_fake": -10.0}
    states = [
        MonitorState().add_step(certain).add_measurement(GOOD, 32_000, logistic)[0].health for logistic in (True, False)
    ]
    assert states == [Health.WARNING, Health.HEALTHY]


def test_each_bound_lies_on_the_side_where_worse_is() -> None:
    for name, bound in BOUNDS.items():
        worse = 1e9 if bound.alarm > bound.warning else -1e9
        assert (bound.severity(-worse), bound.severity(worse)) == (0, 2 if np.isfinite(bound.alarm) else 1), name


def test_changes_are_the_registry() -> None:
    assert tuple(CHANGES_BY_NAME) == CHANGES
    assert CollapseSettings(changes="packing, draws").check() is None
    assert "'pack'" in str(CollapseSettings(changes="pack").check())
    assert "names none" in str(CollapseSettings(changes=" ,").check())


def test_what_each_change_changes() -> None:
    config = recipe_config("dcgan-32")
    halved = apply_rollbacks(config, [{"change": "learning-rate"}] * 2)
    assert halved.optimizer.g_lr == config.optimizer.g_lr / 4
    assert halved.optimizer.d_lr == config.optimizer.d_lr / 4
    assert apply_rollbacks(config, [{"change": "penalty"}]).penalties.r1.weight == 1
    slow = replace(config.optimizer, decay_images=1000)
    penalties = Penalties(r1=Weighted(2.0, final=0.5), wgan_gp=Weighted(10.0))
    penalised = replace(config, penalties=penalties, optimizer=slow)
    stronger = apply_rollbacks(penalised, [{"change": "penalty"}]).penalties
    assert (stronger.r1.weight, stronger.r1.final, stronger.wgan_gp.weight, stronger.r2.weight) == (4, 1, 20, 0)
    assert apply_rollbacks(config, [{"change": "augmentation"}]).augment.kind == "diffaugment"
    assert apply_rollbacks(config, [{"change": "packing"}]).network.pack == 2
    assert apply_rollbacks(config, [{"why": "NaN or Inf"}, {"change": "draws"}]) == config


def test_changes_take_turns_and_what_does_not_go_is_passed_over() -> None:
    config = recipe_config("dcgan-32")
    order = "learning-rate,augmentation,packing"
    assert [next_change(config, order, k) for k in range(4)] == [
        "learning-rate",
        "augmentation",
        "packing",
        "learning-rate",
    ]
    augmented = apply_change(config, "augmentation")
    assert augmented
    assert next_change(augmented, order, 1) == "packing"
    conditional = recipe_config("projection-64")
    assert apply_change(conditional, "packing") is None  # packed pictures would be of different classes
    assert next_change(conditional, "packing", 0) == "draws"


@pytest.mark.parametrize("name", ["dcgan-32", "gan-32", "pacgan-64", "wgan-gp-32", "r3gan-64"])
def test_a_packed_discriminator_says_of_equal_pictures_what_it_said_of_fewer(name: str) -> None:
    config = recipe_config(name)
    config = replace(config, network=replace(config.network, g_channels=16, d_channels=16))
    packed = apply_change(config, "packing")
    assert packed
    before, after = (create_state(c, "data", torch.device("cpu")) for c in (config, packed))
    after.identities = before.identities
    after.load(fit_state(before.tensors(), after.tensors()), before.scalars(), "here")
    x = torch.from_numpy(blobs(4, "pack")).permute(0, 3, 1, 2).float() / 127.5 - 1
    x = torch.nn.functional.interpolate(x, config.network.size)

    def said(state: TrainState, pack: int) -> torch.Tensor:
        logits: torch.Tensor = state.discriminator(x.repeat_interleave(pack, 0), torch.full((4 * pack,), -1)).logits
        return logits

    torch.testing.assert_close(said(after, packed.network.pack), said(before, config.network.pack))


@pytest.mark.parametrize("name", ["sngan-32", "stylegan2-64"])
def test_where_it_would_say_something_else_packing_does_not_apply(name: str) -> None:
    assert apply_change(recipe_config(name), "packing") is None


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_fits_each_change(change: str) -> None:
    config = replace(recipe_config("dcgan-32"), network=NetworkSettings(size=32, g_channels=8, d_channels=8))
    changed = apply_change(config, change)
    assert changed
    state, target = (create_state(c, "data", torch.device("cpu")) for c in (config, changed))
    target.identities = state.identities
    target.load(fit_state(state.tensors(), target.tensors()), state.scalars(), "here")
    for name, tensor in state.tensors().items():
        if target.tensors()[name].shape == tensor.shape:
            assert torch.equal(target.tensors()[name], tensor), name


def test_the_record_is_a_part_of_the_state() -> None:
    config = replace(recipe_config("dcgan-32"), network=NetworkSettings(size=32, g_channels=8, d_channels=8))
    state, other = (create_state(config, "data", torch.device("cpu")) for _ in range(2))
    state.monitor, _ = MonitorState().add_step(SCALARS).add_measurement(BAD, 32_000, logistic=True)
    other.load(state.tensors(), state.scalars(), "here")
    assert other.monitor == state.monitor != MonitorState()


def test_impossible_settings_are_refused() -> None:
    config = replace(Config(), collapse=CollapseSettings(every_images=-1))
    with pytest.raises(Exception, match=r"collapse\.every_images"):
        config.check()


def test_an_alarm_over_little_data_shows_what_there_is(tmp_path: Path) -> None:
    """Of n training pictures the monitor compares n / 2 with as many: fewer than a sample grid holds."""
    config = Config(mixed_precision="no", network=NetworkSettings(size=16, z_dim=8, g_channels=4, d_channels=4))
    grids = SampleGrids(config, RunFolder(tmp_path), cast(Reader, None), torch.device("cpu"))
    few = philox("few").integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    grids.__dict__["real"] = Samples(few.repeat(4, 0), np.zeros(80, np.int64), np.arange(80), np.arange(80))
    grids.measured = few
    grids(Request("alarm", 640, 0), {})
    with Image.open(RunFolder(tmp_path).alarm_images(640, 0)) as picture:
        assert picture.size == (2 * 8 * 16 + 4, 3 * 16)
