"""Files of earlier versions are read as those of today, and those of later versions are refused.

Each file of a run or a study says by `schema` in which format it was written; one without it is of the first format.
`upgraded` takes what a file holds through one small function for each format that has come since. A row of
metrics.jsonl has no `schema`, because its bytes are promised, and needs none: no name is used again for another thing.

To rename a setting, or to add one that changes bits, write a line in SETTINGS or ADDED under SCHEMA. Raise SCHEMA first
if a release has written files of it; the aliases of the names before (aliases.py) then end by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from trainer.core.fields import Refused, hash_of, identity_settings

SCHEMA = 2  # of all that this version writes into the folders of runs and studies
FIRST = 1  # of files that do not say it

T = TypeVar("T")
Values = Mapping[str, Any]
Names = Mapping[str, str]
"""Old name: new name, each dotted; that of a group stands for all in it."""

SETTINGS: dict[int, Names] = {2: {"sentinel": "collapse"}}
"""By format: the settings that it calls otherwise than the one before."""
ADDED: dict[int, Values] = {2: {}}
"""By format: the identity settings that the one before had not, with the values that give its bits."""
SCALARS: dict[int, Names] = {
    2: {
        "sentinel": "collapse_monitor",
        "collapse_monitor.state": "collapse_monitor.health",
        "collapse_monitor.before": "collapse_monitor.previous_health",
        "collapse_monitor.badness": "collapse_monitor.severity",
        "collapse_monitor.size": "collapse_monitor.magnitude",
        "collapse_monitor.last.size": "collapse_monitor.last.magnitude",
        "collapse_monitor.best.size": "collapse_monitor.best.magnitude",
        "collapse_monitor.last.strangeness": "collapse_monitor.last.distance_to_data",
        "collapse_monitor.best.strangeness": "collapse_monitor.best.distance_to_data",
    }
}
"""By format: the values of a state (state.json) that it calls otherwise than the one before."""
TENSORS: dict[int, Names] = {2: {"memory": "running_scalars"}}
"""By format: the same for tensors (state.safetensors)."""
COLUMNS: dict[int, Names] = {
    2: {
        "sentinel": "collapse",
        "collapse/state": "collapse/health",
        "collapse/size": "collapse/magnitude",
        "collapse/strangeness": "collapse/distance_to_data",
    }
}
"""By format: the same for columns of metrics.jsonl, whose names have / in place of a dot."""
EVENTS: dict[int, Names] = {2: {"sentinel": "collapse alarm"}}
"""By format: the kinds of events.jsonl that it calls otherwise than the one before."""


def renamed(name: str, names: Names, separator: str = ".") -> str:
    """Return what a name is called now."""
    for old, new in names.items():
        if name == old or name.startswith(old + separator):
            name = new + name[len(old) :]
    return name


def inverse(names: Names) -> Names:
    """Return what leads back."""
    return {new: old for old, new in reversed([*names.items()])}


def moved(values: Values, names: Names) -> dict[str, Any]:
    """Return nested values in which what had old names has new ones; what is not there is passed over."""
    made = deepcopy(dict(values))
    for old, new in names.items():
        *groups, last = old.split(".")
        if (group := inner(made, groups)) is not None and last in group:
            put(made, new, group.pop(last))
    return made


def inner(values: dict[str, Any], groups: Sequence[str]) -> dict[str, Any] | None:
    """Return the group that a path leads to; None: there is none."""
    for name in groups:
        found = values.get(name)
        if not isinstance(found, dict):
            return None
        values = found
    return values


def put(values: dict[str, Any], name: str, value: Any) -> None:
    """Put a value into its place among nested ones, which is made."""
    *groups, last = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[last] = value


def config_step(values: dict[str, Any], schema: int) -> dict[str, Any]:
    """config.json: the settings of a run."""
    made = moved(values, SETTINGS[schema])
    for name, value in ADDED[schema].items():
        *groups, last = name.split(".")
        if last not in (inner(made, groups) or {}):
            put(made, name, value)
    return made


def state_step(values: dict[str, Any], schema: int) -> dict[str, Any]:
    """state.json: what a checkpoint holds besides tensors."""
    return moved(values, SCALARS[schema])


def plan_step(values: dict[str, Any], schema: int) -> dict[str, Any]:
    """plan.json of a study, which repeats lienzo.toml."""
    return values | {"project": moved(values.get("project", {}), SETTINGS[schema])}


def metrics_step(row: dict[str, Any], schema: int) -> dict[str, Any]:
    """metrics.jsonl: the columns of a row."""
    return {column(name, schema): value for name, value in row.items()}


@cache  # files have many rows of the same columns
def column(name: str, schema: int) -> str:
    """Return what a format calls a column of the one before."""
    return renamed(name, COLUMNS[schema], "/")


def event_step(row: dict[str, Any], schema: int) -> dict[str, Any]:
    """events.jsonl: what happened."""
    return row | {"kind": EVENTS[schema].get(row["kind"], row["kind"])} if "kind" in row else row


STEPS: Mapping[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
    "config.json": config_step,
    "state.json": state_step,
    "plan.json": plan_step,
    "metrics.jsonl": metrics_step,
    "events.jsonl": event_step,
}
"""By file: from the values of the format before to those of a format. All others hold what they always held."""


def numbered(values: Values) -> dict[str, Any]:
    """Return what is to be written: values, and the format that they are in."""
    return {"schema": SCHEMA, **values}


def load(path: Path) -> dict[str, Any]:
    """Read a JSON file of any format as one of today's.

    Raises:
        OSError, ValueError: it cannot be read, or holds no object.
        Refused: a later version wrote it.
    """
    values = json.loads(path.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no object")
    return upgraded(path.name, values, str(path))


def upgraded(file: str, values: Values, where: str) -> dict[str, Any]:
    """Return the values of a file, or of a row of it, as those of today's format, without its number.

    Args:
        file: its usual name, which tells what it holds.
        values: as they are stored.
        where: names it to the user.

    Raises:
        Refused: a later version wrote it.
    """
    schema = known(values.get("schema", FIRST), where)
    made = {name: value for name, value in values.items() if name != "schema"}
    if step := STEPS.get(file):
        for number in range(schema + 1, SCHEMA + 1):
            made = step(made, number)
    return made


def known(schema: object, where: str) -> int:
    """Return the number of a format that this version reads.

    Raises:
        Refused: it is another one, or no number.
    """
    if type(schema) is not int or schema < FIRST:
        raise Refused(f"{where} is damaged: its schema is {schema!r}")
    if schema > SCHEMA:
        raise Refused(
            f"{where} was written by a newer version of lienzo: it has schema {schema}, and this version reads those "
            f"up to {SCHEMA}; update lienzo"
        )
    return schema


def in_metadata() -> dict[str, str]:
    """Return what a safetensors file that this version writes says of its format."""
    return {"lienzo_schema": str(SCHEMA)}


def schema_of(metadata: Mapping[str, str] | None, where: str) -> int:
    """Return the format of a safetensors file.

    Raises:
        Refused: a later version wrote it.
    """
    text = (metadata or {}).get("lienzo_schema", str(FIRST))
    return known(int(text) if text.isdecimal() else text, where)


def tensor_name(name: str, schema: int) -> str:
    """Return today's name of a tensor of a format."""
    for number in range(schema + 1, SCHEMA + 1):
        name = renamed(name, TENSORS[number])
    return name


def first_tensor_name(name: str) -> str:
    """Return what the first format calls a tensor."""
    for number in range(SCHEMA, FIRST, -1):
        name = renamed(name, inverse(TENSORS[number]))
    return name


def with_first_names(scalars: Values) -> dict[str, Any]:
    """Return the values of a state by the names of the first format."""
    for number in range(SCHEMA, FIRST, -1):
        scalars = moved(scalars, inverse(SCALARS[number]))
    return dict(scalars)


def identities(settings: Any) -> tuple[str, ...]:
    """Return the hash of the identity settings, then those by which earlier formats know the same settings."""
    named = identity_settings(settings)
    found = [hash_of(named)]
    for number in range(SCHEMA, FIRST, -1):
        added, back = ADDED[number], inverse(SETTINGS[number])
        if any(named[name] != value for name, value in added.items()):
            break  # earlier versions had no such runs
        named = {renamed(name, back): value for name, value in named.items() if name not in added}
        found.append(hash_of(named))
    return tuple(found)


def kept_settings(values: Values) -> dict[str, Any]:
    """Return nested settings of any format with today's names: a study's copy of STUDY.toml does not say which."""
    for number in range(FIRST + 1, SCHEMA + 1):
        values = moved(values, SETTINGS[number])
    return dict(values)
