"""`launcher recipes`: which recipes there are, what each follows and is expected to give; of one, all that it sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import tyro
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from command_line.help_page import HelpPage
from launcher.cli.wide_console import wide_console
from trainer.config.authors import SCRIPTS
from trainer.config.batch_scaling import NO_RULE, layouts
from trainer.config.config import Config
from trainer.config.recipes import RECIPES, Recipe
from trainer.core.advice import command
from trainer.core.fields import changed_settings
from trainer.core.registry import choose_from

COLUMNS = ("recipe", "size", "objective", "paper", "networks", "expected", "cost on the paper's hardware")
NARROW, FEW = 180, 4  # in a terminal narrower than this only so many columns are shown


@dataclass(frozen=True)
class Recipes:
    """List the recipes, each with its paper; of one, show what it sets and how to start it."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "": "all of them, with their papers",
            "stylegan2-256": "what this one sets, and how to start it",
        },
    )

    recipe: tyro.conf.Positional[str | None] = None
    """Show what this one sets."""


def run_recipes(args: Recipes) -> int:
    """Carry out `recipes`.

    Raises:
        Refused: there is no recipe of this name.
    """
    console = wide_console()
    columns = FEW if console.width < NARROW else len(COLUMNS)
    view = (
        recipes_table(columns)
        if args.recipe is None
        else recipe_details(args.recipe, choose_from(RECIPES, args.recipe, "recipe"))
    )
    console.print(view)
    return 0


def recipes_table(columns: int) -> RenderableType:
    """Return one row for each recipe, with the first of the columns."""
    made = Table(*COLUMNS[:columns], box=None, padding=(0, 2, 0, 0), header_style="bold")
    # Names are typed into commands, so they must not break over lines.
    for column in made.columns[:3]:
        column.no_wrap = True
    for name, recipe in RECIPES.items():
        config = recipe.config
        row = (name, str(config.network.size), config.objective, recipe.paper, name_networks(config))
        made.add_row(*map(Text, (*row, recipe.expect, recipe.cost)[:columns]))
    hints = "all that one sets: python -m launcher recipes NAME\nstart one: python -m launcher submit NAME --data DIR"
    return Group(made, Text(f"\n{hints}", "dim"))


def name_networks(config: Config) -> str:
    """Name the architectures: one, if generator and discriminator are of the same."""
    same = config.generator == config.discriminator
    return config.generator if same else f"{config.generator} / {config.discriminator}"


def recipe_details(name: str, recipe: Recipe) -> RenderableType:
    """Return what a recipe follows, what it sets, and how to start it."""
    rows = {"recipe": name, "paper": recipe.paper, "expected": recipe.expect, "cost": recipe.cost}
    head = Table.grid(padding=(0, 2, 0, 0))
    for title, text in rows.items():
        head.add_row(Text(title, "bold"), Text(text))
    changes = Table("setting", "here", "default", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for setting, here, default in changed_options(recipe.config):
        changes.add_row(Text(setting, no_wrap=True), Text(str(here)), Text(str(default), "dim"))
    labels = " --labels folders" if recipe.config.network.uses_classes else ""
    start = (
        f"python -m shards build PICTURES --out DIR --size {recipe.config.network.size}{labels}\n"
        f"{command('launcher', 'submit', name, '--data')} DIR"
    )
    parts = (changes, *authors_script(name, recipe), Text(), *on_gpus(recipe))
    return Group(head, Text(), *parts, Text("\nstart it:", "bold"), Text(start))


def authors_script(name: str, recipe: Recipe) -> Iterator[RenderableType]:
    """Yield which script of the authors a recipe follows, and where it departs from it."""
    if name not in SCRIPTS:
        return
    script = SCRIPTS[name]
    yield Text(f"\nthe authors' script: {script.source}")
    departures = Table("departs in", "there", "why, or how", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for what, theirs, why in script.departures(recipe.config):
        departures.add_row(what, theirs, Text(why))
    yield departures


def on_gpus(recipe: Recipe) -> Iterator[RenderableType]:
    """Yield what to set on one, eight and 32 GPUs, and by which rule."""
    table = Table("GPUs", "batch = micro-batches", "options", "the rule sets", box=None, padding=(0, 2, 0, 0))
    for layout in layouts(recipe.config, recipe.rule):
        options = " ".join(layout.options(recipe.config)) or "none"
        changes = ", ".join(map(str, layout.scaling.changes)) if layout.scaling else ""
        grown = " (grown: more GPUs than the paper's batch has parts for)" if layout.grown else ""
        table.add_row(str(layout.gpus), Text(layout.batch, no_wrap=True), Text(options + grown), Text(changes))
    yield table
    yield Text(f"the rule: {recipe.rule.source}: {recipe.rule.summary}" if recipe.rule else NO_RULE, "dim")


def changed_options(config: Config) -> Iterator[tuple[str, Any, Any]]:
    """Yield (option, value, default) of each setting that differs from its default."""
    for name, here, default in changed_settings(config, Config()):
        if name != "recipe":
            yield f"--{name.replace('_', '-')}", here, default
