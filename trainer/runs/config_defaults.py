"""The settings that a command line starts from, and what it must not say twice.

A new run: recipe, then `lienzo.toml` in the current folder, then W&B's variables, then the command line. A run that
exists: its own `config.json`, then the command line. Nothing else is read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from command_line.arguments import flag_given
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.config.wandb_environment import from_environment
from trainer.core.aliases import todays_settings
from trainer.core.fields import Refused, overlay_settings
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder

DEFAULT_RECIPE = "dcgan-64"
PROJECT_FILE = Path("lienzo.toml")
TWO_WAYS = (  # settings of which the first counts unless it is None, and what they tell
    ("epochs", "total_images", "how long to train"),
    ("log_every_s", "log_every_images", "when to write a row"),
    ("sample_every_s", "sample_every_images", "when to generate the grid"),
    ("checkpoint_every_s", "checkpoint_every_images", "when to save"),
)


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


def load_defaults(recipe_name: str | None, run: RunFolder | None) -> Config:
    """Return the settings that the command line starts from.

    Raises:
        Refused: there is no such recipe, it is not the existing run's, or a file holds bad settings.
    """
    if run and run.config.exists():
        # A run goes on with its own settings, whatever lienzo.toml says by now.
        stored = read_config(run)
        if recipe_name and recipe_name != stored.recipe:
            raise Refused(f"{run.path} is a run of recipe {stored.recipe!r}, not {recipe_name!r}; name another --run")
        return stored
    project = {key: value for key, value in read_project_file().items() if key != "profile"}  # that is the launcher's
    for wins, by_images, what in TWO_WAYS:
        if {wins, by_images} <= project.keys():
            raise Refused(f"{PROJECT_FILE}: {wins} and {by_images} both tell {what}: keep one of them")
    config = overlay_settings(recipe_config(recipe_name or DEFAULT_RECIPE), project, str(PROJECT_FILE))
    # Last: the environment wins over lienzo.toml, as the command line does over both.
    return overlay_settings(config, {"tracking": from_environment()}, "the environment")


def resolve_length(asked: Config, arguments: Sequence[str]) -> Config:
    """Let lengths and intervals that a command line names win over those of a file: there are two ways to say each.

    Raises:
        Refused: it names both.
    """
    for wins, by_images, what in TWO_WAYS:
        if flag_given(arguments, by_images):
            if flag_given(arguments, wins):
                both = f"--{wins.replace('_', '-')} and --{by_images.replace('_', '-')}"
                raise Refused(f"{both} both tell {what}: name one of them")
            left_out: dict[str, Any] = {wins: None}
            asked = replace(asked, **left_out)
    return asked
