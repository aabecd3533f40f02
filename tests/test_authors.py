"""Recipes against what the authors' scripts set: equal, or with a reason that a user is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from launcher.__main__ import main
from tests.conftest import HOME
from trainer.config.authors import SCRIPTS, half_life
from trainer.config.groups import OptimizerSettings
from trainer.config.recipes import RECIPES
from trainer.core.fields import setting_leaves
from trainer.gan.optimizers import update_average

WORDS = (HOME / "docs" / "architectures.md").read_text().replace("\n", " ")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_recipe_sets_what_the_script_sets_or_says_why_not(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    script, config = SCRIPTS[name], RECIPES[name].config
    departures = list(script.departures(config))
    assert all(why for _, _, why in departures), departures
    differing = {setting for setting, _, _ in departures}
    known = {setting for setting, _, _ in setting_leaves(config)}
    assert {*script.otherwise} <= differing, "a reason for what does not differ"
    assert not [key for key in script.otherwise if "." in key and key not in known]
    assert main(["recipes", name]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for what in (script.source, *(why for _, _, why in departures)):
        assert what in said
    for why in script.otherwise.values():
        assert why in WORDS, "docs/architectures.md has all of them"


def test_a_setting_that_moves_away_is_seen() -> None:
    config = RECIPES["r3gan-64"].config
    moved = replace(config, augment=replace(config.augment, colour_share=1.0))
    assert ("augment.colour_share", "0.5", "") in list(SCRIPTS["r3gan-64"].departures(moved))


def test_a_decay_by_step_as_a_half_life() -> None:
    assert 0.9999 ** (half_life(0.9999, 200) / 200) == pytest.approx(0.5)


def test_r3gans_average_forgets_at_once_in_the_beginning_and_slowly_in_the_end() -> None:
    """Half of the way its half-life is half of the last one: (1 - cos(pi / 2)) / 2."""
    settings = RECIPES["r3gan-64"].config.optimizer
    for seen, remembered in ((0, 0.0), (10_000_000, 0.5 ** (1000 / 250_000)), (20_000_000, 0.5 ** (1000 / 500_000))):
        average = [torch.zeros(1)]
        update_average(average, [torch.ones(1)], 1000, seen, settings)
        assert average[0].item() == pytest.approx(1 - remembered, rel=1e-4)


def test_a_half_life_of_nothing_is_the_weights() -> None:
    average = [torch.zeros(2)]
    update_average(average, [torch.ones(2)], 10, 1000, OptimizerSettings(ema_half_life_images=0.0))
    assert average[0].tolist() == [1.0, 1.0]
