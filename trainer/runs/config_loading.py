"""How the settings of a run are loaded, resolved, checked and stored.

A new run: recipe, then `lienzo.toml` in the current folder, then W&B's variables, then the command line. A run that
exists: its own `config.json`, then the command line, which must not change an identity setting. Nothing else is read.

The order of a command: `load_defaults`, its own parser, `resolve_length`, `resolve_config`, and `write_config` once the
run folder is held.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from command_line.arguments import said
from shards.atomic_files import write_atomically
from shards.dataset.index import Index
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.config.recipes import RECIPES, recipe
from trainer.config.wandb_environment import SETTINGS, from_environment
from trainer.core.advice import command
from trainer.core.fields import Refused, from_json, identity_settings, overlay, to_json
from trainer.distributed.numerical_environment import best_precision
from trainer.runs.init_from import find_pretrained, keep_pretrained
from trainer.runs.run_folder import RunFolder

DEFAULT_RECIPE = "dcgan-64"
PROJECT_FILE = Path("lienzo.toml")
NETWORKS = ("recipe", "generator", "discriminator", "network.")  # settings that decide what weights there are


def read_config(run: RunFolder) -> Config:
    """Return a run's settings.

    Raises:
        Refused: the folder holds no run, or its settings cannot be read.
    """
    try:
        values = json.loads(run.config.read_text())
    except FileNotFoundError:
        raise Refused(f"{run.path} holds no run: there is no {run.config.name} in it") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{run.config} cannot be read: {error}") from error
    return from_json(Config, values, str(run.config))


def read_project_file() -> dict[str, Any]:
    """Return what lienzo.toml in the current folder says; nothing when there is none.

    Raises:
        Refused: it is not TOML.
    """
    try:
        return tomllib.loads(PROJECT_FILE.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Refused(f"{PROJECT_FILE} cannot be read: {error}") from error


def load_defaults(recipe_name: str | None, run: RunFolder | None) -> Config:
    """Return the settings that the command line starts from.

    Raises:
        Refused: there is no such recipe, it is not the existing run's, or a file holds bad settings.
    """
    if run and run.config.exists():
        stored = read_config(run)
        if recipe_name and recipe_name != stored.recipe:
            raise Refused(f"{run.path} is a run of recipe {stored.recipe!r}, not {recipe_name!r}; name another --run")
        return stored
    project = {key: value for key, value in read_project_file().items() if key != "profile"}  # that is the launcher's
    if {"epochs", "total_images"} <= project.keys():
        raise Refused(f"{PROJECT_FILE}: epochs and total_images both tell how long to train: keep one of them")
    config = overlay(recipe(recipe_name or DEFAULT_RECIPE), project, str(PROJECT_FILE))
    return overlay(config, {"tracking": from_environment()}, "the environment")


def resolve_length(asked: Config, arguments: Sequence[str]) -> Config:
    """Let the length that a command line names win over one that stands in a file: there are two ways to say it.

    Raises:
        Refused: it names both.
    """
    if said(arguments, "epochs") and said(arguments, "total_images"):
        raise Refused("--epochs and --total-images both tell how long to train: name one of them")
    return replace(asked, epochs=None) if said(arguments, "total_images") else asked


class ResolvedConfig(NamedTuple):
    """Settings that nothing can change any more, and the dataset that they were checked against."""

    config: Config
    dataset: Index


def resolve_config(run: RunFolder, asked: Config, dataset: Index | None = None) -> ResolvedConfig:
    """Check the settings, and decide those that depend on this machine, the data or the run folder.

    Args:
        run: the run folder, which need not exist.
        asked: the settings, as their user has named them.
        dataset: the data, where it is open already.

    Raises:
        Refused: a value is impossible here, or changes the identity of an existing run.
    """
    config = replace(asked, mixed_precision=best_precision()) if asked.mixed_precision == "auto" else asked
    config = replace(config, data=config.data.resolve()) if config.data else config  # a resume may stand elsewhere
    config.check()
    dataset = dataset or open_data(config)
    if config.network.uses_classes and not config.network.classes:
        config = replace(config, network=replace(config.network, classes=len(dataset.classes)))
    check_length(run, config, dataset)
    stored = read_config(run) if run.config.exists() else None
    config = resolve_init_from(run, config, stored)
    if stored:
        compare_identity(run, stored, config)
    return ResolvedConfig(config, dataset)


def check_length(run: RunFolder, config: Config, dataset: Index) -> None:
    """Refuse to end a run before where it is.

    Raises:
        Refused: it has seen more pictures.
    """
    newest, total = run.newest_checkpoint(), config.images_to_see(dataset.splits["train"].samples)
    if newest and total < newest[0]:
        raise Refused(
            f"{run.path} has seen {newest[0]:,} images already, and is to end at {total:,}: name a larger total, or "
            f"none to leave it as it is; as it was at an earlier checkpoint, it can be sampled with --checkpoint"
        )


def resolve_init_from(run: RunFolder, asked: Config, stored: Config | None) -> Config:
    """Find and hash the weights that a new run starts from.

    A run that exists (`stored`) has a copy of them, so that what has become of their source does not matter.

    Raises:
        Refused: they are not to be had, or not those that the run began with.
    """
    config = replace(asked, init_from=asked.init_from.resolve()) if asked.init_from else asked
    if stored and config.init_from in (None, stored.init_from):
        return replace(config, init_from=stored.init_from, init_hash=stored.init_hash)
    config = replace(config, init_hash=find_pretrained(config).hash if config.init_from else "")
    if stored and config.init_hash != stored.init_hash:
        again = command_for_new_run(stored)
        raise Refused(
            f"{run.path} did not begin with the weights of {asked.init_from}; begin a new run with them: {again}"
        )
    return config


def check_identity(run: RunFolder, config: Config) -> None:
    """Refuse to go on with a run, as it lies in its folder now, under other identity settings than it began with.

    Raises:
        Refused: naming the setting.
    """
    if run.config.exists():
        compare_identity(run, read_config(run), config)


def compare_identity(run: RunFolder, stored: Config, asked: Config) -> None:
    """Refuse settings whose identity differs from the stored ones.

    Raises:
        Refused: naming the setting.
    """
    go_on = command("launcher", "resume", run.path, "--as", "NEW")
    for name in SETTINGS:
        if (is_now := getattr(stored.tracking, name)) != (other := getattr(asked.tracking, name)):
            raise Refused(
                f"tracking.{name} is {is_now!r} in {run.path} and cannot become {other!r}: a run stays in the W&B run "
                f"that it began with; with this setting, go on as a new run: {go_on}"
            )
    before = identity_settings(stored)
    for name, value in identity_settings(asked).items():
        if before[name] != value:
            new = f"go on as a new run: {go_on}"
            if name.startswith(NETWORKS):
                new = f"begin a new run: {command_for_new_run(asked)}"
            raise Refused(
                f"{name} is {before[name]!r} in {run.path} and cannot become {value!r}: it changes the bits of the "
                f"run; with this setting, {new}"
            )


def command_for_new_run(config: Config) -> str:
    """Return the command that begins a run of the same recipe on the same data; further settings may follow it."""
    data = ("--data", config.data) if config.data else ()
    return command("launcher", "submit", *(config.recipe,) * (config.recipe in RECIPES), *data, "--run", "NEW")


def write_config(run: RunFolder, config: Config) -> None:
    """Make the run folder and put the settings into it.

    Raises:
        Refused: the folder cannot be written.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        if config.init_hash and not run.config.exists():
            keep_pretrained(run, config)
        write_atomically(run.config, (json.dumps(to_json(config), indent=2) + "\n").encode())
    except OSError as error:
        raise Refused(f"the run folder {run.path} cannot be written: {error.strerror}") from error
