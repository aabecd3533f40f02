"""What a user may have meant by a name that there is none of; every package that refuses a name says it this way."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the end of a refusal: the known name that is nearest, as a question, or what is said where none is near.

    Args:
        name: that the user gave.
        known: the names that there are.
        otherwise: such as "there are a, b, c".
    """
    near = difflib.get_close_matches(name, [*known], n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
