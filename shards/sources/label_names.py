"""Names of classes that people take for the same: they differ in case, white space or form of Unicode alone."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable


def normalise_label(text: str) -> str:
    """Return a label in lower case, in Unicode's form NFKC, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def near_equal_labels(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of different names that are the same when normalised."""
    groups = defaultdict[str, list[str]](list)
    for name in names:
        groups[normalise_label(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]
