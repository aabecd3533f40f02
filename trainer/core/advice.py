"""Commands that messages tell the user to run: they can be copied into a shell, whatever the paths are called."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """Return `python -m` with these words, quoted where a shell wants it."""
    return shlex.join(["python", "-m", *map(str, words)])
