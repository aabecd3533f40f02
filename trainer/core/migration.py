"""Files of earlier versions are read as those of today, and those of later versions are refused.

Each file of a run or a study says by `schema` in which format it was written; one without it is of the first format.
`upgrade_values` takes what a file holds through one small function for each format that has come since. A row of
metrics.jsonl has no `schema`, because its bytes are promised, and needs none: no name is used again for another thing.

What changes in a format by its names alone is in formats.py; any other change of a file is a step here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from trainer.core.fields import Refused, hash_of, hashed_settings
from trainer.core.formats import ADDED, COLUMNS, EVENTS, FIRST, SCALARS, SCHEMA, SETTINGS, TENSORS, Names, Values


def new_name(name: str, names: Names, separator: str = ".") -> str:
    """Return what a name is called now."""
    # In the order of the table: a later line may rename what an earlier one has made.
    for old, new in names.items():
        if name == old or name.startswith(old + separator):
            name = new + name[len(old) :]
    return name


def invert_names(names: Names) -> Names:
    """Return what leads back."""
    return {new: old for old, new in reversed([*names.items()])}  # a later line is undone first


def rename_nested(values: Values, names: Names) -> dict[str, Any]:
    """Return nested values in which what had old names has new ones; what is not there is passed over."""
    made = deepcopy(dict(values))
    for old, new in names.items():
        *groups, last = old.split(".")
        if (group := nested_group(made, groups)) is not None and last in group:
            put_nested(made, new, group.pop(last))
    return made


def nested_group(values: dict[str, Any], groups: Sequence[str]) -> dict[str, Any] | None:
    """Return the group that a path leads to; None: there is none."""
    for name in groups:
        found = values.get(name)
        if not isinstance(found, dict):
            return None
        values = found
    return values


def put_nested(values: dict[str, Any], name: str, value: Any) -> None:
    """Put a value into its place among nested ones, which is made."""
    *groups, last = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[last] = value


def config_step(values: dict[str, Any], schema: int) -> dict[str, Any]:
    """config.json: the settings of a run."""
    made = rename_nested(values, SETTINGS[schema])
    for name, value in ADDED[schema].items():
        *groups, last = name.split(".")
        if last not in (nested_group(made, groups) or {}):
            put_nested(made, name, value)
    return made


def state_step(values: dict[str, Any], schema: int) -> dict[str, Any]:
    """state.json: what a checkpoint holds besides tensors."""
    return rename_nested(values, SCALARS[schema])


def plan_step(values: dict[str, Any], schema: int) -> dict[str, Any]:
    """plan.json of a study, which repeats lienzo.toml."""
    return values | {"project": rename_nested(values.get("project", {}), SETTINGS[schema])}


def metrics_step(row: dict[str, Any], schema: int) -> dict[str, Any]:
    """metrics.jsonl: the columns of a row."""
    return {new_column(name, schema): value for name, value in row.items()}


@cache  # files have many rows of the same columns
def new_column(name: str, schema: int) -> str:
    """Return what a format calls a column of the one before."""
    return new_name(name, COLUMNS[schema], "/")


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


def with_schema(values: Values) -> dict[str, Any]:
    """Return what is to be written: values, and the format that they are in."""
    return {"schema": SCHEMA, **values}


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of any format as one of today's.

    Raises:
        OSError, ValueError: it cannot be read, or holds no object.
        Refused: a later version wrote it.
    """
    values = json.loads(path.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no object")
    return upgrade_values(path.name, values, str(path))


def upgrade_values(file: str, values: Values, where: str) -> dict[str, Any]:
    """Return the values of a file, or of a row of it, as those of today's format, without its number.

    Args:
        file: its usual name, which tells what it holds.
        values: as they are stored.
        where: names it to the user.

    Raises:
        Refused: a later version wrote it.
    """
    schema = known_schema(values.get("schema", FIRST), where)
    made = {name: value for name, value in values.items() if name != "schema"}
    if step := STEPS.get(file):
        for number in range(schema + 1, SCHEMA + 1):
            made = step(made, number)
    return made


def known_schema(schema: object, where: str) -> int:
    """Return the number of a format that this version reads.

    Raises:
        Refused: it is another one, or no number.
    """
    if type(schema) is not int or schema < FIRST:  # True is an int to Python
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
    # Not isdigit: "²" is one, and int() does not take it.
    return known_schema(int(text) if text.isdecimal() else text, where)


def tensor_name(name: str, schema: int) -> str:
    """Return today's name of a tensor of a format."""
    for number in range(schema + 1, SCHEMA + 1):
        name = new_name(name, TENSORS[number])
    return name


def first_tensor_name(name: str) -> str:
    """Return what the first format calls a tensor."""
    for number in range(SCHEMA, FIRST, -1):
        name = new_name(name, invert_names(TENSORS[number]))
    return name


def with_first_names(scalars: Values) -> dict[str, Any]:
    """Return the values of a state by the names of the first format."""
    for number in range(SCHEMA, FIRST, -1):
        scalars = rename_nested(scalars, invert_names(SCALARS[number]))
    return dict(scalars)


def identity_hashes(settings: Any) -> tuple[str, ...]:
    """Return the hash of the identity settings, then those by which earlier formats know the same settings."""
    named = hashed_settings(settings)
    found = [hash_of(named)]
    for number in range(SCHEMA, FIRST, -1):
        added, back = ADDED[number], invert_names(SETTINGS[number])
        if any(named[name] != value for name, value in added.items()):
            break  # earlier versions had no such runs
        # What that version would have hashed: its settings, by its names.
        named = {new_name(name, back): value for name, value in named.items() if name not in added}
        found.append(hash_of(named))
    return tuple(found)


def kept_settings(values: Values) -> dict[str, Any]:
    """Return nested settings of any format with today's names: a study's copy of STUDY.toml does not say which."""
    for number in range(FIRST + 1, SCHEMA + 1):
        values = rename_nested(values, SETTINGS[number])
    return dict(values)
