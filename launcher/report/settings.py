"""The settings of runs: what differs from the recipe, and between runs; all of them; and how to train again."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from importlib.metadata import version
from typing import Any

import tyro

from launcher.pages.document import folded
from launcher.pages.markup import Markup, tag
from launcher.pages.tables import build_table
from launcher.report.run_facts import RunFacts
from trainer.config.config import Config
from trainer.config.dataset import as_options
from trainer.config.recipes import RECIPES
from trainer.core.advice import command
from trainer.core.fields import Refused, changed_settings, setting_leaves
from trainer.runs.config_defaults import DEFAULT_RECIPE
from trainer.runs.config_loading import read_config

NEEDED = ("total_images", "epochs", "data", "init_from")
"""Of the settings that change no bits: without these a command would train something else."""
OWN = ("recipe", "data")
"""What a command line says by other words."""


def settings_parts(found: Sequence[RunFacts]) -> list[Markup]:
    """Return tables of settings."""
    parts = [changes_table(facts) for facts in found]
    if len(found) > 1:
        parts.insert(0, differences_table(found))
    return [*parts, *(folded(f"All settings of {facts.name}", all_table(facts)) for facts in found)]


def changes_table(facts: RunFacts) -> Markup:
    """Return what a run sets otherwise than its recipe."""
    try:
        config = read_config(facts.run)
    except Refused as error:
        return tag("p", f"{facts.name}: {error}", class_="note")
    recipe = config.recipe if config.recipe in RECIPES else DEFAULT_RECIPE
    changed = [one for one in changed_settings(config, RECIPES[recipe].config) if one[0] != "recipe"]
    if not changed:
        return tag("p", f"{facts.name} sets all as the recipe {recipe} does.", class_="note")
    rows = [[name, str(here), str(there)] for name, here, there in changed]
    caption = f"What {facts.name} sets otherwise than the recipe {recipe}"
    return build_table(caption, ("Setting", "Here", "Recipe"), rows)


def differences_table(found: Sequence[RunFacts]) -> Markup:
    """Return the settings that are not the same in all runs."""
    flat = [dict(leaves(facts.config)) for facts in found]
    names = [name for name in dict.fromkeys(name for one in flat for name in one) if name != "schema"]
    rows = [[name, *(str(one.get(name, "–")) for one in flat)] for name in names]
    rows = [row for row in rows if len({*row[1:]}) > 1]
    if not rows:
        return tag("p", "All settings of these runs are the same.", class_="note")
    return build_table("Settings that differ between the runs", ("Setting", *(facts.name for facts in found)), rows)


def all_table(facts: RunFacts) -> Markup:
    """Return all of config.json."""
    rows = [[name, str(value)] for name, value in leaves(facts.config)]
    return build_table(f"config.json of {facts.name}", ("Setting", "Value"), rows)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of nested plain values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def reproduce_parts(found: Sequence[RunFacts]) -> list[Markup]:
    """Return the command that trains each run again, and what its bits depend on besides."""
    said = f"With lienzo {version('lienzo')}; the same hardware and libraries give the same bits."
    parts = [tag("p", said, class_="note")]
    for facts in found:
        try:
            again = command_for(read_config(facts.run))
        except Refused as error:
            again = f"# {error}"
        parts += [tag("h3", facts.name)] * (len(found) > 1)
        told = f"Command for {facts.name}"
        parts.append(tag("pre", tag("code", again), tabindex="0", role="region", aria_label=told))
    return parts


def command_for(config: Config) -> str:
    """Return the command that begins a run with the same bits."""
    recipe = config.recipe if config.recipe in RECIPES else DEFAULT_RECIPE
    words = [recipe, *(["--data", str(config.data)] if config.data else []), "--run", "NEW"]
    identity = {name for name, kind, _ in setting_leaves(config) if kind == "identity"}
    taken = {*identity, *NEEDED} - {*hidden_settings(Config), *OWN}
    for name, here, _ in changed_settings(config, RECIPES[recipe].config):
        if name in taken:
            words += as_options(name, here)
    return command("launcher", "submit", *words)


def hidden_settings(cls: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of settings that no command line takes: they follow from others."""
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        plain = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        if is_dataclass(plain):
            yield from hidden_settings(typing.cast(type, plain), f"{prefix}{name}.")
        elif tyro.conf.Suppress in typing.get_args(hint)[1:]:
            yield f"{prefix}{name}"
