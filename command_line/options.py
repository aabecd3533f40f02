"""What a command takes, read from its dataclass by the rules of tyro: names, values, defaults and docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

# Their classes have no public names.
NAMES: tuple[Any, ...] = (type(tyro.conf.arg()), type(tyro.conf.subcommand()))
VALUES = {Path: "PATH", str: "STR", int: "INT", float: "FLOAT"}


@dataclass(frozen=True)
class Option:
    """An argument of a command."""

    name: str
    """As it is typed, such as --network.size; a positional argument has that of its attribute."""
    kind: Any
    """The type of its value."""
    marks: tuple[Any, ...]
    """What the type is annotated with."""
    field: Field[Any]
    owner: type
    """The dataclass of the attribute."""

    @property
    def positional(self) -> bool:
        """Whether its place says what it is, in place of a name."""
        return tyro.conf.Positional in self.marks

    @property
    def default(self) -> Any:
        """The value of one that is not given; MISSING: it must be given."""
        return self.field.default if self.field.default_factory is MISSING else self.field.default_factory()

    @property
    def meaning(self) -> str:
        """Its docstring, in one line."""
        return attribute_docstrings(self.owner)[self.field.name]

    @property
    def invocation(self) -> str:
        """How it is typed, with what stands for its value, such as --nodes INT."""
        if self.kind is bool:
            aliases = [alias for mark in self.marks if isinstance(mark, NAMES[0]) for alias in mark.aliases or ()]
            return ", ".join([*aliases, self.name, *([inverse(self.name)] if self.default is True else [])])
        value = placeholder(self.kind, self.marks)
        if not self.positional:
            return f"{self.name} {value}"
        many = " ..." if value.endswith(" ...") else ""
        return value if value.startswith("{") or metavar(self.marks) else self.name.upper() + many


def options_of(kind: type, prefix: str = "") -> Iterator[Option]:
    """Yield what a command takes, as tyro's own help does.

    Args:
        kind: its dataclass.
        prefix: of the names, such as network. for a group of settings.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        of_field, marks = without_marks(hints[field.name])
        if tyro.conf.Suppress in marks:
            continue
        name = given_name(marks, field.name.replace("_", "-"))
        if is_dataclass(of_field):
            assert isinstance(of_field, type)
            yield from options_of(of_field, f"{prefix}{name}." if name else prefix)
        else:
            typed = name if tyro.conf.Positional in marks else f"--{prefix}{name}"
            yield Option(typed, of_field, marks, field, kind)


def without_marks(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type, and what it is annotated with."""
    return (hint.__origin__, hint.__metadata__) if typing.get_origin(hint) is Annotated else (hint, ())


def given_name(marks: tuple[Any, ...], otherwise: str) -> str:
    """Return the name that tyro.conf.arg or tyro.conf.subcommand gives."""
    return next((mark.name for mark in marks if isinstance(mark, NAMES) and mark.name is not None), otherwise)


def metavar(marks: tuple[Any, ...]) -> str | None:
    """Return what stands for a value as an annotation says, or None; the outermost one has the say."""
    return next((said for mark in reversed(marks) if (said := getattr(mark, "metavar", None))), None)


def placeholder(kind: Any, marks: tuple[Any, ...] = ()) -> str:
    """Return what stands for a value: INT, {yes,no}, STR ... for several."""
    origin = typing.get_origin(kind)
    if said := metavar(marks):
        return f"{said} ..." if origin is tuple else said
    parts = [part for part in typing.get_args(kind) if part not in (type(None), ...)]
    if origin is Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    if origin in (Union, types.UnionType):
        return "|".join(placeholder(*without_marks(part)) for part in parts)
    if origin is tuple:
        return f"{placeholder(*without_marks(parts[0]))} ..."
    return VALUES[kind]


def inverse(flag: str) -> str:
    """Return the flag that means no: --no-ema of --ema, --network.no-g-conditional of --network.g-conditional."""
    group, dot, name = flag.removeprefix("--").rpartition(".")
    return f"--{group}{dot}no-{name}"


def attribute_docstrings(kind: type) -> dict[str, str]:
    """Return the docstrings of a class's attributes, each in one line; those of the classes it inherits from, too."""
    found: dict[str, str] = {}
    for one in reversed([one for one in kind.__mro__ if is_dataclass(one)]):
        # Python keeps no docstrings of attributes: they stand in the source alone.
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(definition, ast.ClassDef)
        for pair in zip(definition.body, definition.body[1:], strict=False):
            match pair:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(text)):
                    found[name] = " ".join(str(text).split())
    return found
