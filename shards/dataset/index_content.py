"""What index.json may say: it may come from elsewhere, and names files, which must lie where its shards are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

SPLITS = {"train", "holdout"}
MOST = 2**63  # counts and sizes are below this, so that NumPy and the system have room for them
MAX_SIDE = 99_999  # pixels; as in shards/images/size.py
OUTSIDE = re.compile(r"(?:^|\0)/|(?:^|[\0/])\.\.(?:[\0/]|$)")
"""In names with zeros between them: one that is absolute, or has a part `..`."""


class LeadsOutside(ValueError):
    """A name leads out of the folder of the shards."""


def check_content(content: Mapping[str, Any]) -> None:
    """Check all of an index that decides which files are opened, and how much memory is asked for.

    There may be 100,000 shards: columns are checked as a whole.

    Raises:
        LeadsOutside: see there.
        ValueError, LookupError, TypeError, AttributeError: something is missing, or of another kind.
    """
    splits, settings = content["splits"], content["settings"]
    require(splits.keys() == SPLITS, "the splits are others")
    for split in splits.values():
        check_columns(split["shards"])
        right = type(split["samples"]) is int and split["samples"] == sum(split["shards"]["samples"])
        require(right, "the counts of samples differ")
    require(sum(split["samples"] for split in splits.values()) < MOST, "too many samples")
    require({type(name) for name in content["classes"]} <= {str}, "a class is no text")
    sides = [settings["height"], settings["width"]]
    require(all(type(side) is int and 0 < side <= MAX_SIDE for side in sides), "the size is none of a picture")
    kind = [type(settings[name]) for name in ("channels", "encode")]
    require(kind == [int, str] and settings["channels"] in (1, 3, 4), "the pictures are of no kind")
    check_hashes([content[name] for name in ("table_sha256", "excluded_sha256") if name in content])
    require(content.get("cards", {}).keys() <= {"card.md", "card.html"}, "the cards are others")


def check_columns(columns: Mapping[str, Sequence[Any]]) -> None:
    """Check what an index says of the shards of a split."""
    required = [columns[name] for name in ("samples", "bytes", "sha256")]
    names = columns.get("names")
    lists = [*required, names] if names is not None else required
    require({type(one) for one in lists} == {list} and len({len(one) for one in lists}) == 1, "the columns differ")
    for numbers in required[:2]:
        require({type(number) for number in numbers} <= {int}, "a number is none")
        require(not numbers or (min(numbers) >= 0 and max(numbers) < MOST), "a number is out of range")
    check_hashes(columns["sha256"])
    if names:
        check_names(names)


def check_hashes(hashes: Sequence[Any]) -> None:
    """Check hashes: copies of remote files are called by them."""
    require({type(one) for one in hashes} <= {str}, "a hash is no text")
    # Not a regular expression, which would take longer than everything else here.
    other = "".join(hashes).encode().translate(None, b"0123456789abcdef")
    require(set(map(len, hashes)) <= {64} and not other, "a hash is none")


def check_names(names: Sequence[Any]) -> None:
    """Check names of shards.

    Raises:
        LeadsOutside: one is absolute, or has a part `..`.
    """
    require({type(name) for name in names} == {str} and "" not in names, "a name is none")
    joined = "\0".join(names)
    require(joined.count("\0") == len(names) - 1, "a name has a zero in it")
    if OUTSIDE.search(joined):
        raise LeadsOutside(next(name for name in names if OUTSIDE.search(name)))


def require(right: bool, what: str) -> None:
    """Check something.

    Raises:
        ValueError: it is not right.
    """
    if not right:
        raise ValueError(what)
