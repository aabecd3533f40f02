"""The dataset of a run, opened and checked against its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shards.dataset.cache_settings import CacheSettings
from shards.dataset.index import DataError, Index
from shards.dataset.labels import label_columns
from shards.images.size import Size, format_size, shape_options
from shards.storage.errors import Unreachable
from shards.storage.storage import PATIENCE_S
from trainer.config.config import Config
from trainer.core.advice import command
from trainer.core.fields import Refused

COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}


def open_data(config: Config) -> Index:
    """Open the dataset and check that it fits the settings.

    Raises:
        Refused: it does not, or there is none.
    """
    if config.data is None:
        raise Refused("no data is named: use --data DIR, a folder that python -m shards build made")
    if isinstance(config.data, Path) and not config.data.exists():
        raise Refused(
            f"the data {config.data} does not exist: if it has moved, name its new place with --data; shards of "
            "pictures are made with: python -m shards build PICTURES --out DIR"
        )
    try:
        index = Index.open(config.data, cache_settings(config))
    except Unreachable:
        raise  # not the user's mistake: the same command may go on later
    except DataError as error:
        raise Refused(str(error)) from error
    # Before the sizes are compared: networks for points fit no shards, and building them again would not help.
    if config.network.size == 0:
        raise Refused(
            "network.size 0 is for points in the plane, and shards hold pictures: use a recipe of pictures (python -m "
            f"launcher recipes lists them){or_other_networks(config, **changes(config, network_of(index)))}"
        )
    check_form(config, index)
    if config.network.uses_classes:
        check_labels(config, index)
    if index.splits["train"].samples == 0:
        raise Refused(f"{config.data} holds no picture to train on")
    # Now, rather than in the middle of an epoch. What is in the shards is verified as it is read.
    if isinstance(index.shards_at, Path):
        refuse_missing_shards(index, index.shards_at)
    return index


def check_labels(config: Config, index: Index) -> None:
    """Check that the pictures have labels for networks that use them.

    Raises:
        Refused: they have not, or not those of the settings.
    """
    named, classes = config.network.label_columns, len(index.classes)
    try:
        known = label_columns(index)
    except DataError as error:
        raise Refused(str(error)) from error
    if not known:
        raise Refused(
            f"the pictures in {config.data} have no labels, and this run uses them: build the shards again with "
            f"--labels folders or --labels TABLE.csv{or_other_networks(config, g_conditional=False, d_head='plain')}"
        )
    if not named and not classes:
        raise Refused(
            f"the pictures in {config.data} have no classes, but {known[0].name!r}, a {known[0].kind}: name it with "
            f"--network.label-columns {known[0].name}"
        )
    if not named and config.network.classes not in (0, classes):  # 0: not settled yet
        raise Refused(f"{config.data} has {classes} classes, but network.classes is {config.network.classes}")


def refuse_missing_shards(index: Index, folder: Path) -> None:
    """Refuse a dataset whose shards are in a local folder that lacks one to train on.

    Raises:
        Refused: naming the shard.
    """
    for shard in index.splits["train"].shards:
        if not (folder / shard.name).exists():
            raise Refused(f"{index.path} lacks the shard {shard.name}; run: {command('shards', 'verify', index.path)}")


def cache_settings(config: Config) -> CacheSettings:
    """Return where copies of remote data are kept, and how long a server that is gone is waited for."""
    folder = config.cache or CacheSettings().folder
    # Before the watchdog takes a process that waits for one that hangs.
    return CacheSettings(folder, config.cache_gb, min(PATIENCE_S, 0.6 * config.stall_after_s))


def check_form(config: Config, index: Index) -> None:
    """Check that the pictures have the height, width and channels of the networks.

    Raises:
        Refused: they have not.
    """
    wanted, found = (config.network.shape, config.network.channels), (index.size, index.channels)
    if found != wanted:
        raise Refused(
            f"the pictures in {config.data} are {describe_form(*found)}, and the networks of this run want "
            f"{describe_form(*wanted)}: build the shards again with {shape_options(*wanted)}"
            f"{or_other_networks(config, **changes(config, network_of(index)))}"
        )


def describe_form(size: Size, channels: int) -> str:
    """Describe pictures, such as "48x64 pixels (height x width), RGBA"."""
    order = " (height x width)" if size[0] != size[1] else ""
    return f"{format_size(size)} pixels{order}, {COLOURS[channels]}"


def network_of(index: Index) -> dict[str, Any]:
    """Return the settings of networks for the pictures of a dataset."""
    height, width = index.size
    return {"size": height, "width": width if width != height else 0, "channels": index.channels}


def changes(config: Config, network: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the settings that a run's networks have not."""
    return {name: value for name, value in network.items() if getattr(config.network, name) != value}


def or_other_networks(config: Config, **network: Any) -> str:
    """Return the other way out, if the run can have networks with these settings."""
    try:
        replace(config, network=replace(config.network, **network)).check()
    except Refused:
        return ""
    options = [words for name, value in network.items() for words in as_options(f"network.{name}", value)]
    return f", or begin a new run with {' '.join(options)}"


def as_options(name: str, value: object) -> tuple[str, ...]:
    """Return a setting as the command line has it."""
    *group, last = name.replace("_", "-").split(".")
    if isinstance(value, bool):
        return (f"--{'.'.join([*group, last if value else f'no-{last}'])}",)
    return f"--{'.'.join([*group, last])}", str(value)
