"""Reading a command line: tyro, with `~` for home in every path, which a shell leaves as it is in --run=~/x."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo


def expand_user(text: str) -> Path:
    """Return a path, with the home that a leading `~` or `~user` stands for; ./~ is a folder of that name.

    Raises:
        ValueError: there is no such user.
    """
    if not text.startswith("~"):
        return Path(text)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise ValueError(f"there is no user {user[1:]!r}; for a folder of the name {user} write ./{text}") from None


def path_rule(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """Tell tyro how a path is read."""
    if kind.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: expand_user(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


PATHS = ConstructorRegistry()
PATHS.primitive_rule(path_rule)


def parse(
    kind: Any,
    arguments: Sequence[str] | None,
    prog: str,
    default: Any = tyro.MISSING_NONPROP,
    description: str | None = None,
    config: tuple[Any, ...] = (),
) -> Any:
    """Read a command line into `kind`; on --help or a mistake, say what it takes, and exit.

    Args:
        kind: a dataclass, or a union of them.
        default: an instance, for all that is not said.
    """
    return tyro.cli(
        kind,
        args=None if arguments is None else list(arguments),
        default=default,
        prog=prog,
        description=description,
        config=config,
        registry=PATHS,
    )


def flag_given(arguments: Sequence[str], setting: str) -> bool:
    """Tell whether a command line names a setting."""
    return any(word.partition("=")[0].replace("_", "-") == f"--{setting.replace('_', '-')}" for word in arguments)
