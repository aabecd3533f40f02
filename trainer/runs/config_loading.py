"""The settings of a run, as they lie in its folder: `config.json`. Nobody writes others over them."""

from __future__ import annotations

import json

from shards.atomic_files import write_atomically
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.config.recipes import RECIPES
from trainer.config.wandb_environment import SETTINGS
from trainer.core.advice import command
from trainer.core.fields import Missing, Refused, from_json, identity_settings, to_json
from trainer.core.migration import load_json, with_schema
from trainer.runs.init_from import keep_pretrained
from trainer.runs.run_folder import RunFolder
from trainer.runs.run_labels import keep_labels
from trainer.runs.run_plugins import check_plugins, note_plugins

NETWORKS = ("recipe", "generator", "discriminator", "network.")  # settings that decide what weights there are


def read_config(run: RunFolder) -> Config:
    """Return a run's settings.

    Raises:
        Refused: the folder holds no run, or its settings cannot be read.
    """
    try:
        values = load_json(run.config)
    except FileNotFoundError:
        raise Refused(f"{run.path} holds no run: there is no {run.config.name} in it") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{run.config} cannot be read: {error}") from error
    if "bundle" in values:
        raise Refused(
            f"{run.path} is a bundle of a trained generator, and no run: start one with --init-from {run.path}"
        )
    check_plugins(run)  # first: without a package its settings would look like mistakes
    try:
        return from_json(Config, values, str(run.config))
    except Missing as error:
        raise Refused(f"{error}; versions before 0.1.0 wrote such runs, and no other version reads them") from None


def write_config(run: RunFolder, config: Config) -> None:
    """Make the run folder and put the settings into it, unless it holds a run of another identity.

    Whoever writes holds the run folder, or is the only one who knows it; so what `resolve_config` has compared is
    compared once more: another run may have begun here since.

    Raises:
        Refused: the folder cannot be written, or holds another run.
    """
    if run.config.exists():
        check_identity(run, read_config(run), config)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        # Before config.json is there: a folder with settings is a run, and must have the weights that it begins with.
        if config.init_hash and not run.config.exists():
            keep_pretrained(run, config)
        if config.network.label_columns and not run.labels.exists():
            keep_labels(run, open_data(config), config.network.label_names)
        note_plugins(run, config)
        write_atomically(run.config, (json.dumps(with_schema(to_json(config)), indent=2) + "\n").encode())
    except OSError as error:
        raise Refused(f"the run folder {run.path} cannot be written: {error.strerror}") from error


def check_identity(run: RunFolder, stored: Config, asked: Config) -> None:
    """Refuse to go on with a run under other identity settings than the stored ones, with which it began.

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
