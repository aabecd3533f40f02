"""RUN/description.json: what a run sets otherwise than its recipe, and what its dataset holds.

It is for those who show a run, and need neither torch nor the dataset for it: W&B's copy of the run, reports. Nothing
that trains reads it.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from shards.atomic_files import write_atomically
from shards.dataset.index import Index
from trainer.config.config import Config
from trainer.config.recipes import RECIPES, recipe_config
from trainer.core.fields import changed_settings, plain_value
from trainer.core.migration import with_schema
from trainer.runs.run_folder import RunFolder

log = logging.getLogger(__name__)

NOT_OF_THE_RECIPE = ("recipe", "data", "tracking.")
"""Settings, or groups of them, that no recipe is about."""


def changed_from_recipe(config: Config) -> dict[str, Any]:
    """Return the settings that differ from those of the recipe (of the defaults, without one), by dotted name.

    A setting that was "auto" there is among them when the run has resolved it.
    """
    start = recipe_config(config.recipe) if config.recipe in RECIPES else Config()
    return {
        name: plain_value(here)
        for name, here, _ in changed_settings(config, start)
        if not name.startswith(NOT_OF_THE_RECIPE)
    }


def describe_dataset(index: Index) -> dict[str, Any]:
    """Return the counts of a dataset: pictures of both sides, exclusions by reason, and pictures of each class."""
    content = index.content
    classes = {"class": dict(zip(content["classes"], content.get("class_counts", ()), strict=False))}
    for column in content.get("attributes", {}).get("columns", []):
        if column["kind"] == "class":
            classes[column["name"]] = dict(zip(column["classes"], column["counts"], strict=True))
    return {
        "place": str(index.path),
        "hash": index.hash,
        "pictures": {name: split.samples for name, split in index.splits.items()},
        "size": [*index.size, index.channels],
        "excluded": content.get("excluded", {}),
        "classes": {column: counts for column, counts in classes.items() if counts},
    }


def write_description(run: RunFolder, config: Config, index: Index) -> None:
    """Write description.json; a full disk is logged, and training goes on."""
    described = {"changed": changed_from_recipe(config), "dataset": describe_dataset(index)}
    try:
        write_atomically(run.description, json.dumps(with_schema(described), indent=1).encode() + b"\n")
    except OSError as error:
        log.warning("%s was not written: %s", run.description, error.strerror)
