"""Labels as StyleGAN's dataset_tool writes them: dataset.json has {"labels": [[name, label], …]}.

A label is a class (a number or a text), or a vector of numbers, which is then a continuous label.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from shards.dataset.index import DataError
from shards.sources.source_entry import encode_name

Label = str | list[float] | None


def read_label_json(file: BinaryIO, what: str) -> Iterator[tuple[str, Label]]:
    """Yield the name of each file and its label; None: it has none.

    Args:
        file: the JSON.
        what: its name, for messages.

    Raises:
        DataError: it is no such file, or its labels are of different kinds.
    """
    try:
        content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what}, the labels, is damaged JSON: {error}") from error
    rows = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise DataError(
            f'{what}, the labels, is JSON without the {{"labels": [[file, label], …]}} of StyleGAN\'s dataset.json: '
            "write it so, or a CSV with the columns file and label"
        )
    kinds = set[int]()
    for number, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)):
            raise DataError(f"{what}: entry {number} of its labels is no pair of a file and a label, but {row!r:.80}")
        label = checked_label(row[1], f"{what}: entry {number} of its labels")
        check_text([row[0], label], f"{what}: entry {number} of its labels")
        if label is not None:
            kinds.add(len(label) if isinstance(label, list) else 0)
        if len(kinds) > 1:
            raise DataError(
                f"{what}: its labels are of different kinds or lengths, see that of {row[0]!r:.80}: make all of them "
                "classes, or all of them vectors of one length"
            )
        yield row[0], label


def checked_label(label: Any, what: str) -> Label:
    """Return a label as text, or as a vector of floats.

    Raises:
        DataError: it is neither.
    """
    if label is None or label == "":
        return None
    if isinstance(label, int | str) and not isinstance(label, bool):
        return str(label)
    if isinstance(label, list) and label and all(is_number(value) for value in label):
        return [float(value) for value in label]
    raise DataError(f"{what} is neither a class (a whole number or a text) nor a vector of numbers, but {label!r:.80}")


def check_text(texts: Iterable[Any], what: str) -> None:
    """Check that texts of JSON have bytes: it can name halves of characters (\\ud800), which no text has.

    Raises:
        DataError: one has none.
    """
    for text in texts:
        try:
            encode_name(text if isinstance(text, str) else "")
        except UnicodeEncodeError:
            raise DataError(f"{what} has half a character in {text!r:.80}: correct it") from None


def is_number(value: Any) -> bool:
    """Return whether a value of JSON is a finite number."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that is larger than any float
        return False
