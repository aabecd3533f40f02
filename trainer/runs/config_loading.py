"""How the settings of a run come about, and how they are kept.

A new run: recipe, then `lienzo.toml` in the current folder, then W&B's variables, then the command line. A run that
exists: its own `config.json`, then the command line, which must not change an identity setting. Nothing else is read.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from command_line.arguments import flag_given
from shards.atomic_files import write_atomically
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.config.recipes import RECIPES, recipe
from trainer.config.wandb_environment import SETTINGS, from_environment
from trainer.core.advice import command
from trainer.core.aliases import todays_settings
from trainer.core.fields import Missing, Refused, from_json, identity_settings, overlay, to_json
from trainer.core.migration import load, numbered
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
        values = load(run.config)
    except FileNotFoundError:
        raise Refused(f"{run.path} holds no run: there is no {run.config.name} in it") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{run.config} cannot be read: {error}") from error
    try:
        return from_json(Config, values, str(run.config))
    except Missing as error:
        raise Refused(f"{error}; versions before 0.1.0 wrote such runs, and no other version reads them") from None


def read_project_file() -> dict[str, Any]:
    """Return what lienzo.toml in the current folder says; nothing when there is none.

    Raises:
        Refused: it is not TOML.
    """
    try:
        return todays_settings(tomllib.loads(PROJECT_FILE.read_text()), str(PROJECT_FILE))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Refused(f"{PROJECT_FILE} cannot be read: {error}") from error


def defaults(name: str | None, run: RunFolder | None) -> Config:
    """Return the settings that the command line starts from.

    Raises:
        Refused: there is no such recipe, it is not the existing run's, or a file holds bad settings.
    """
    if run and run.config.exists():
        stored = read_config(run)
        if name and name != stored.recipe:
            raise Refused(f"{run.path} is a run of recipe {stored.recipe!r}, not {name!r}; name another --run")
        return stored
    project = {key: value for key, value in read_project_file().items() if key != "profile"}  # that is the launcher's
    if {"epochs", "total_images"} <= project.keys():
        raise Refused(f"{PROJECT_FILE}: epochs and total_images both tell how long to train: keep one of them")
    config = overlay(recipe(name or DEFAULT_RECIPE), project, str(PROJECT_FILE))
    return overlay(config, {"tracking": from_environment()}, "the environment")


def settle_length(asked: Config, arguments: Sequence[str]) -> Config:
    """Let the length that a command line names win over one that stands in a file: there are two ways to say it.

    Raises:
        Refused: it names both.
    """
    if flag_given(arguments, "epochs") and flag_given(arguments, "total_images"):
        raise Refused("--epochs and --total-images both tell how long to train: name one of them")
    return replace(asked, epochs=None) if flag_given(arguments, "total_images") else asked


def check_length(run: RunFolder, config: Config) -> None:
    """Refuse to end a run before where it is.

    Raises:
        Refused: it has seen more pictures.
    """
    newest = run.newest_checkpoint()
    if newest is None or config.data is None:
        return
    samples = open_data(config).splits["train"].samples if config.epochs else 0
    if (total := config.images_to_see(samples)) < newest[0]:
        raise Refused(
            f"{run.path} has seen {newest[0]:,} images already, and is to end at {total:,}: name a larger total, or "
            f"none to leave it as it is; as it was at an earlier checkpoint, it can be sampled with --checkpoint"
        )


def check_identity(run: RunFolder, asked: Config) -> None:
    """Refuse to go on with a run under other identity settings than it began with.

    Raises:
        Refused: naming the setting.
    """
    if not run.config.exists():
        return
    before, go_on = read_config(run), command("launcher", "resume", run.path, "--as", "NEW")
    for name in SETTINGS:
        if (is_now := getattr(before.tracking, name)) != (wanted := getattr(asked.tracking, name)):
            raise Refused(
                f"tracking.{name} is {is_now!r} in {run.path} and cannot become {wanted!r}: a run stays in the W&B run "
                f"that it began with; with this setting, go on as a new run: {go_on}"
            )
    stored = identity_settings(before)
    for name, value in identity_settings(asked).items():
        if stored[name] != value:
            new = f"go on as a new run: {go_on}"
            if name.startswith(NETWORKS):
                new = f"begin a new run: {anew(asked)}"
            raise Refused(
                f"{name} is {stored[name]!r} in {run.path} and cannot become {value!r}: it changes the bits of the "
                f"run; with this setting, {new}"
            )


def anew(config: Config) -> str:
    """Return the command that begins a run of the same recipe on the same data; further settings may follow it."""
    data = ("--data", config.data) if config.data else ()
    return command("launcher", "submit", *(config.recipe,) * (config.recipe in RECIPES), *data, "--run", "NEW")


def settle(run: RunFolder, asked: Config) -> Config:
    """Check the settings and resolve what the machine decides.

    Raises:
        Refused: a value is impossible here, or changes the identity of an existing run.
    """
    config = replace(asked, mixed_precision=best_precision()) if asked.mixed_precision == "auto" else asked
    config = replace(config, data=config.data.resolve()) if config.data else config  # whoever goes on stands elsewhere
    config.check()
    if config.network.uses_classes and not config.network.classes and config.data:
        known = len(open_data(config).classes)
        config = replace(config, network=replace(config.network, classes=known))
    check_length(run, config)
    config = settle_initial(run, config)
    check_identity(run, config)
    return config


def settle_initial(run: RunFolder, asked: Config) -> Config:
    """Fix the weights that a new run starts from; one that exists has them already, whatever became of their source.

    Raises:
        Refused: they are not to be had, or not those that the run began with.
    """
    config = replace(asked, init_from=asked.init_from.resolve()) if asked.init_from else asked
    stored = read_config(run) if run.config.exists() else None
    if stored and config.init_from in (None, stored.init_from):
        return replace(config, init_from=stored.init_from, init_hash=stored.init_hash)
    config = replace(config, init_hash=find_pretrained(config).hash if config.init_from else "")
    if stored and config.init_hash != stored.init_hash:
        raise Refused(
            f"{run.path} did not begin with the weights of {asked.init_from}; begin a new run with them: {anew(stored)}"
        )
    return config


def write_config(run: RunFolder, config: Config) -> None:
    """Make the run folder and put the settings into it.

    Raises:
        Refused: the folder cannot be written.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        if config.init_hash and not run.config.exists():
            keep_pretrained(run, config)
        write_atomically(run.config, (json.dumps(numbered(to_json(config)), indent=2) + "\n").encode())
    except OSError as error:
        raise Refused(f"the run folder {run.path} cannot be written: {error.strerror}") from error
