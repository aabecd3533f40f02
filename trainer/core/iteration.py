"""What itertools lacks in Python 3.11: a file of its own, since packages that know nothing of each other use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items, the last of which may be shorter."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group
