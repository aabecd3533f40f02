"""Settings by the names that they had in the format before: taken with a hint, until the next format comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from command_line.arguments import hint_at_new_name
from trainer.core.fields import Refused
from trainer.core.formats import SCHEMA, SETTINGS
from trainer.core.migration import nested_group, new_name, rename_nested

NEGATION = "no_"  # before the name of a setting that is true or false, on the command line


def todays_flags(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which settings have today's names."""
    return [todays_flag(word) if word.startswith("--") else word for word in arguments]


def todays_flag(word: str) -> str:
    """Return --NAME or --NAME=VALUE with today's name."""
    flag, equals, value = word.partition("=")
    group, dot, last = flag.removeprefix("--").replace("-", "_").rpartition(".")
    for prefix in ("", NEGATION):
        name = group + dot + last.removeprefix(prefix)
        if last.startswith(prefix) and (new := new_name(name, SETTINGS[SCHEMA])) != name:
            group, dot, last = new.rpartition(".")
            made = f"--{group}{dot}{prefix}{last}".replace("_", "-")
            hint(flag, made)
            return made + equals + value
    return word


def todays_settings(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return nested settings of a user's file with today's names.

    Raises:
        Refused: something is there by both names.
    """
    for old, new in SETTINGS[SCHEMA].items():
        if holds_setting(values, old):
            if holds_setting(values, new):
                raise Refused(f"{where}: {old} is called {new} now, and both are there: keep {new}")
            hint(f"{where}: {old}", new)
    return rename_nested(values, SETTINGS[SCHEMA])


def holds_setting(values: Mapping[str, Any], name: str) -> bool:
    """Tell whether nested values have a dotted name."""
    *groups, last = name.split(".")
    return last in (nested_group(dict(values), groups) or {})


hint = cache(hint_at_new_name)  # said once, however often the same is read
