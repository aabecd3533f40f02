"""The settings of a build that adds to a dataset are those of the dataset, but for those that say where to look.

An option that is given, and is another than the dataset's, is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from command_line.arguments import flag_given
from shards.building.old_dataset import check_extendable
from shards.building.options import Build, settings_of
from shards.dataset.index import parse_index, read_index
from shards.errors import DataError
from shards.images.size import format_size

SAME_NAME = ("channels", "fit", "crop", "background", "scaled_decode", "max_pixels", "max_bytes", "min_size",
             "max_aspect", "encode", "holdout", "seed", "shard_samples")  # fmt: skip
"""Settings that are options of the same name."""
FIXED = (*SAME_NAME, "height", "width", "number_columns", "normalise_labels")


def options_given(arguments: Sequence[str]) -> set[str]:
    """Return the options that a command line has, by the names of their fields."""
    return {
        field.name
        for field in fields(Build)
        if flag_given(arguments, field.name) or flag_given(arguments, f"no_{field.name}")
    }


def adopt_settings(args: Build, given: Collection[str]) -> Build:
    """Return the options with the settings of the dataset that is added to, in place of those that are not given.

    Args:
        args: with `add`.
        given: names of the options that the user gave.

    Raises:
        DataError: an option that was given differs, or the dataset cannot be added to.
    """
    assert args.add is not None
    before = check_extendable(args.add, parse_index(args.add, read_index(args.add)))["settings"]
    adopted = replace(args, **{name: value for name, value in options_of(before).items() if name not in given})
    if isinstance(before["labels"], list) and adopted.labels in ("none", "folders"):
        columns = ", ".join(before["labels"][1:])
        raise DataError(
            f"--add {args.add} has labels of a table, column {columns}: name a table of the new pictures with --labels"
        )
    if len(adopted.size) != 1:
        raise DataError(
            f"--add {args.add} is a dataset of one size, and --size names {len(adopted.size)}: leave it away"
        )
    now = settings_of(adopted)
    for name in ("labels", *FIXED):
        there, here = (settings.get(name) for settings in (before, now))
        if name == "labels" and isinstance(there, list) and isinstance(here, list):
            there, here = there[1:], here[1:]  # the column of files may have another name
        if there != here:
            raise DataError(
                f"--add {args.add} has {name} {there!r}, and the options ask for {here!r}: leave that option away, as "
                "what is added has the settings of the dataset"
            )
    return adopted


def options_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that say these settings, by the names of their fields; not that a table has the labels."""
    options = {name: settings[name] for name in SAME_NAME}
    options["size"] = (format_size((settings["height"], settings["width"])),)
    options["number_column"] = tuple(settings.get("number_columns", ()))
    options["normalise_labels"] = settings.get("normalise_labels", False)
    labels = settings["labels"]
    if isinstance(labels, list):
        return options | {"file_column": labels[0], "label_column": tuple(labels[1:])}
    return options | {"labels": labels}
