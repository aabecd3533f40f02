"""Commands that messages tell the user to run: they can be copied into a shell, whatever the paths are called."""

from __future__ import annotations

import shlex

from command_line.program import program


def command(package: str, *words: object) -> str:
    """Return a command of a package, as the user types such commands, quoted where a shell wants it."""
    return shlex.join([*program(package), *map(str, words)])
