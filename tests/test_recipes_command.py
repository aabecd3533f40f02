"""`launcher recipes`: all that can be trained, and what each sets."""

from __future__ import annotations

import pytest

from launcher.__main__ import main
from launcher.cli.recipes import changed_options
from trainer.config.config import Config
from trainer.config.recipes import RECIPES
from trainer.core.fields import setting_leaves


def test_every_recipe_is_listed_with_its_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1 : len(RECIPES) + 1]}
    assert list(rows) == list(RECIPES)
    for name, recipe in RECIPES.items():
        for text in (recipe.config.generator, recipe.config.objective, recipe.paper, recipe.expect, recipe.cost):
            assert text in rows[name], name
    paper = lines[0].index("paper")
    assert all(row[paper - 1] == " " and row[paper] != " " for row in rows.values()), "aligned"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shows_what_it_sets(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", name]) == 0
    said = capsys.readouterr().out
    config = RECIPES[name].config
    shown = {line.split()[0] for line in said.splitlines() if line.startswith("--")}
    default = {setting: value for setting, _, value in setting_leaves(Config())}
    differing = {setting for setting, _, value in setting_leaves(config) if value != default[setting]} - {"recipe"}
    assert shown == {f"--{setting.replace('_', '-')}" for setting in differing}
    assert f"python -m launcher submit {name} --data DIR" in said
    assert ("--labels folders" in said) == config.network.uses_classes


def test_an_unknown_recipe_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "dcgan-65"]) == 2
    assert "there is no recipe 'dcgan-65'; did you mean 'dcgan-64'?" in capsys.readouterr().err


def test_a_default_is_no_change() -> None:
    assert list(changed_options(Config(recipe="any"))) == []
    assert list(changed_options(Config(batch_size=64))) == [("--batch-size", 64, 128)]
