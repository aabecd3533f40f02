"""Registries: settings that name one of several implementations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import tyro

from command_line.suggestion import did_you_mean
from trainer.core.fields import Refused

T = TypeVar("T")


def one_of(registry: Mapping[str, object]) -> object:
    """Return the annotation of a setting that names an entry: `--help` lists them."""
    return tyro.conf.arg(metavar="{" + ",".join(registry) + "}")


def choose_from(registry: Mapping[str, T], name: str, setting: str) -> T:
    """Return the entry of this name.

    Raises:
        Refused: there is none; the nearest one is named.
    """
    if name not in registry:
        hint = did_you_mean(name, registry, f"there are {', '.join(registry)}")
        raise Refused(f"there is no {setting} {name!r}; {hint}")
    return registry[name]
