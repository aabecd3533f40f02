"""Registries: settings that name one of several implementations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import tyro

from command_line.plugins import PluginError
from command_line.suggestion import did_you_mean
from trainer.core.fields import Refused

T = TypeVar("T")


def one_of(registry: Mapping[str, object]) -> object:
    """Return the annotation of a setting that names an entry: `--help` lists them."""
    return tyro.conf.arg(metavar="{" + ",".join(registry) + "}")


def choose_from(registry: Mapping[str, T], name: str, setting: str) -> T:
    """Return the entry of this name.

    Raises:
        Refused: there is none; the nearest one is named. Or it is a plugin that cannot be used.
    """
    try:
        return registry[name]
    except PluginError as error:
        raise Refused(f"{setting} {error}") from error
    except KeyError:
        hint = did_you_mean(name, registry, f"there are {', '.join(registry)}")
        raise Refused(f"there is no {setting} {name!r}; {hint}") from None


def is_kind(base: type) -> Callable[[Any], bool]:
    """Return what tells whether something is a subclass of `base`."""
    return lambda value: isinstance(value, type) and issubclass(value, base)


def is_a(base: type) -> Callable[[Any], bool]:
    """Return what tells whether something is an instance of `base`."""
    return lambda value: isinstance(value, base)
