"""What the data of a run has in the labels that its networks are told."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from shards.dataset.index import DataError, Index
from shards.dataset.labels import Column, LabelReader, Labels
from shards.storage.errors import Unreachable
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.networks.labels import LabelKind, describe_kind

MOST_ROWS = 1 << 20  # of which the mean and the spread of numbers are computed
PARTS = 256  # of so many rows, where the training set has more


def settle_labels(config: Config, index: Index) -> Config:
    """Return the settings with what the data has: from here on that is a setting, which other data does not fit.

    Raises:
        Refused: the data lacks a column, or the networks cannot be told it.
    """
    network = config.network
    if not network.uses_classes:
        return config
    if not network.label_columns:
        return replace(config, network=replace(network, classes=network.classes or len(index.classes)))
    reader = open_labels(config, index)
    numbers = read_numbers(reader, index) if any(column.kind == "number" for column in reader.columns) else None
    kinds, first = [], 0
    for column in reader.columns:
        values = None if numbers is None else numbers[:, first]
        kinds.append(describe_kind(kind_of(column, values, f"network.label_columns: {column.name!r} in {index.path}")))
        first += column.length
    return replace(config, network=replace(network, label_kinds=", ".join(kinds)))


def open_labels(config: Config, index: Index) -> LabelReader:
    """Open the labels that the networks are told.

    Raises:
        Refused: there is no such column, or it is none for a discriminator that guesses classes.
    """
    try:
        reader = LabelReader(index, config.network.label_names)
    except Unreachable:
        raise  # not the user's mistake
    except DataError as error:
        raise Refused(f"network.label_columns: {error}") from error
    odd = [column for column in reader.columns if column.kind != "class"]
    if config.network.d_head == "classifier" and odd:
        # Nothing would teach the generator what they mean: D neither guesses nor is told them.
        raise Refused(
            f"network.d_head classifier guesses classes, and {odd[0].name!r} is a {odd[0].kind}: use "
            "--network.d-head projection, or other --network.label-columns"
        )
    return reader


def read_numbers(reader: LabelReader, index: Index) -> Labels:
    """Return the labels of the training set; of a large one those of parts at equal distances: (n, values)."""
    split = index.splits["train"]
    if split.samples <= MOST_ROWS:
        return reader(np.arange(split.first, split.first + split.samples))
    size = MOST_ROWS // PARTS
    starts = [split.first + (split.samples - size) * k // (PARTS - 1) for k in range(PARTS)]
    return np.concatenate([reader(np.arange(start, start + size)) for start in starts])


def kind_of(column: Column, values: Labels | None, where: str) -> LabelKind:
    """Return what networks must know of a column.

    Args:
        column: of the labels.
        values: of a number, those of the training set, (n,).
        where: names it to the user.

    Raises:
        Refused: no picture has a value in it.
    """
    if column.kind == "vector":
        return LabelKind(length=column.length)
    if column.kind == "class":
        if not column.classes:
            raise Refused(f"{where} has no classes")
        return LabelKind(len(column.classes))
    known = [] if values is None else values[~np.isnan(values)].tolist()
    if not known:
        raise Refused(f"{where} is unknown of all training pictures")
    # The sums are exact, whatever their order: the same bits on any machine.
    mean = math.fsum(known) / len(known)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known))
    return LabelKind(scaled=(mean, spread or 1.0))
