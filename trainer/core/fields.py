"""Typed settings: which of them change bits, and how they are read back strictly.

Each field of a settings dataclass is marked. **Identity** settings change the bits of a run, so they are fixed when it
starts; **operational** ones (processes, intervals, paths) may change on any resume.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

from command_line.arguments import expand_user
from command_line.suggestion import did_you_mean
from shards.errors import DataError
from shards.storage.place import Url, parse_place
from trainer.core.limits import Limits

T = TypeVar("T")


class Refused(Exception):
    """Bad input of a user's: the message says what is wrong, where, and what to do. Exit code 2, no traceback."""


class Missing(Refused):
    """A stored setting is not there."""


def mark(kind: str, default: Any, within: str | None, **more: Any) -> Any:
    """Make a dataclass field that carries its kind, its limits and more."""
    return field(default=default, metadata={"kind": kind, "limits": Limits(within) if within else None} | more)


def identity(default: Any = MISSING, within: str | None = None) -> Any:
    """Declare a setting that changes the bits of a run; a number says within which interval it must be."""
    return mark("identity", default, within)


def later_identity(default: Any, within: str | None = None) -> Any:
    """Declare a setting that changes bits, and was added with a default that gives the bits of before.

    At its default it is not in the identity's hash, and stored settings need not name it: those of before do not.
    """
    return mark("identity", default, within, later=True)


def operational(default: Any = MISSING, within: str | None = None) -> Any:
    """Declare a setting that may change on any resume; a number says within which interval it must be."""
    return mark("operational", default, within)


def group(default_factory: Any) -> Any:
    """Declare a nested group of settings, each of which has a kind of its own."""
    return field(default_factory=default_factory, metadata={"kind": "group"})


def setting_leaves(settings: Any, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (dotted name, kind, value) of every setting."""
    for f in fields(settings):
        value = getattr(settings, f.name)
        if is_dataclass(value):
            yield from setting_leaves(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f.metadata["kind"], value


def changed_settings(settings: Any, base: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted name, value and value in `base` of each setting that differs."""
    for (name, _, here), (_, _, there) in zip(setting_leaves(settings), setting_leaves(base), strict=True):
        if here != there:
            yield name, here, there


def check_limits(settings: Any, prefix: str = "") -> None:
    """Refuse numbers beyond what their settings declare, and empty texts, of a group and those in it.

    Raises:
        Refused: naming the first.
    """
    for f in fields(settings):
        name, value = prefix + f.name, getattr(settings, f.name)
        if is_dataclass(value):
            check_limits(value, f"{name}.")
        elif (limits := f.metadata.get("limits")) and value is not None and not limits.hold(value):
            raise Refused(f"{name} {limits.words(value)}, but is {value}")
        # Where the default is an empty text, it has a meaning.
        elif isinstance(value, str) and f.default != "" and not (value.strip() and value.isprintable()):
            raise Refused(f"{name} must not be empty, nor hold control characters, but is {value!r}")


def identity_settings(settings: Any) -> dict[str, Any]:
    """Return the settings that change bits, by dotted name."""
    return {name: value for name, kind, value in setting_leaves(settings) if kind == "identity"}


def hashed_settings(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return the settings of which the identity's hash is made, by dotted name."""
    found: dict[str, Any] = {}
    for f in fields(settings):
        name, value = prefix + f.name, getattr(settings, f.name)
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if f.metadata.get("later") and value == default:
            continue
        if is_dataclass(value):
            found |= hashed_settings(value, f"{name}.")
        elif f.metadata["kind"] == "identity":
            found[name] = value
    return found


def identity_hash(settings: Any) -> str:
    """Return the SHA-256 of the identity settings, as hex digits."""
    return hash_of(hashed_settings(settings))


def hash_of(named: Mapping[str, Any]) -> str:
    """Return the SHA-256 of values by name, as hex digits."""
    # Sorted by name: the order of declaration is no setting.
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def to_json(settings: Any) -> dict[str, Any]:
    """Return the settings as nested plain values."""
    return {
        f.name: to_json(value) if is_dataclass(value) else plain_value(value)
        for f in fields(settings)
        for value in [getattr(settings, f.name)]
        # A run that does not use what another package adds can be read where that is not installed.
        if not (f.metadata.get("plugin") and value == cast(Any, f.default_factory)())
    }


def plain_value(value: Any) -> Any:
    """Return the value of a setting as JSON has it."""
    return str(value) if isinstance(value, Path | Url) else value


def from_json(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build settings from nested plain values that name every one of them that changes bits.

    Raises:
        Missing, Refused: a name is not there; one is unknown, or a value is of the wrong type.
    """
    # No default stands in for these: it may be another one than when the run began, and change its bits. Operational
    # settings are added from version to version.
    named = [
        f for f in fields(cast(Any, cls)) if f.metadata.get("kind") != "operational" and not f.metadata.get("later")
    ]
    missing = [f.name for f in named if f.name not in values]
    if missing:
        raise Missing(f"{where}: the setting {missing[0]!r} is missing")
    built: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for name, value in check_names(cls, values, where).items():
        hint = hints[name]
        if is_dataclass(hint):
            built[name] = from_json(cast(type, hint), check_table(value, f"{where}: {name}"), f"{where}: {name}")
        else:
            built[name] = convert_value(value, hint, f"{where}: {name}")
    return cls(**built)


def overlay_settings(settings: T, values: Mapping[str, Any], where: str) -> T:
    """Return `settings` with those that `values` (nested plain values) names replaced.

    Raises:
        Refused: a name is unknown, or a value is of the wrong type.
    """
    changes: dict[str, Any] = {}
    hints = typing.get_type_hints(type(settings))
    for name, value in check_names(type(settings), values, where).items():
        now = getattr(settings, name)
        if is_dataclass(now):
            changes[name] = overlay_settings(now, check_table(value, f"{where}: {name}"), f"{where}: {name}")
        else:
            changes[name] = convert_value(value, hints[name], f"{where}: {name}")
    return cast(T, replace(cast(Any, settings), **changes))


def check_names(cls: type, values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Refuse unknown names, with the nearest valid one."""
    names = [f.name for f in fields(cls)]
    for name in values:
        if name not in names:
            hint = did_you_mean(name, names, f"the settings here are {', '.join(names)}")
            raise Refused(f"{where}: there is no setting {name!r}; {hint}")
    return values


def check_table(value: Any, where: str) -> Mapping[str, Any]:
    """Refuse a plain value where a group of settings stands."""
    if not isinstance(value, Mapping):
        raise Refused(f"{where} is a group of settings, but is given {value!r}")
    return value


def convert_value(value: Any, hint: Any, where: str) -> Any:
    """Check a plain value against a setting's type: bool, int, float, str, Path, a Literal, or one of those or None."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        if typing.get_origin(option) is Literal:
            if value in typing.get_args(option):
                return value
        # People and JSON write 1 for 1.0.
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif option is Path and isinstance(value, str):
            try:
                return parse_place(value) if Url in options else expand_user(value)
            except (ValueError, DataError) as error:
                raise Refused(f"{where}: {error}") from None
        # Not isinstance: True is an int to Python, and would pass for 1.
        elif type(value) is option:
            return value
    expected = " or ".join(describe_type(option) for option in options)
    raise Refused(f"{where} must be {expected}, but is {value!r}")


def describe_type(option: Any) -> str:
    """Name a type in words."""
    if typing.get_origin(option) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(option))
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path", Url: "a URL"}
    return words.get(option, "nothing")
