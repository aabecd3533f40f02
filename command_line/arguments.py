"""Parse a command line with tyro, with two additions.

- `~` means the home folder in every path: a shell does not expand it in --run=~/x.
- Flags that were renamed are still understood, with a hint.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from command_line.program import program


def expand_user(text: str) -> Path:
    """Return a path with a leading `~` or `~user` replaced by that home folder; ./~ is a folder of that name.

    Raises:
        ValueError: there is no such user.
    """
    if not text.startswith("~"):
        return Path(text)
    try:
        return Path(text).expanduser()
    except RuntimeError:  # how pathlib says that there is no such user
        user = text.partition("/")[0]
        raise ValueError(f"there is no user {user[1:]!r}; for a folder of the name {user} write ./{text}") from None


def path_rule(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """Return how tyro parses a path; None: `kind` is no path."""
    if kind.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: expand_user(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


RENAMED_FLAGS = {  # old -> new; a line is removed one version after it was added
    "--like": "--reference-convention",
}

# A registry of our own: the rule is for our commands, not for whatever else uses tyro in this process.
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
    """Parse a command line; on --help or a mistake, print what it takes, and exit.

    Args:
        kind: a dataclass, or a union of them as subcommands.
        arguments: without the program; None: those of this process.
        prog: the command, `python -m` and so on; messages name it as the user has typed it.
        default: an instance with the values of flags that are not given.
        description: of the command, for --help.
        config: markers of tyro.

    Returns:
        An instance of `kind`.
    """
    return tyro.cli(
        kind,
        # Before tyro sees them: it refuses a flag that it does not know.
        args=rename_flags(sys.argv[1:] if arguments is None else arguments),
        default=default,
        prog=as_typed(prog),
        description=description,
        config=config,
        registry=PATHS,
    )


def as_typed(prog: str) -> str:
    """Return a command, if it is given with `python -m`, in the words with which the user has started it."""
    words = prog.split()
    return " ".join([*program(words[2]), *words[3:]]) if words[:2] == ["python", "-m"] else prog


def rename_flags(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with renamed flags replaced by the new ones; a line on standard error says so for each."""
    renamed = []
    for word in arguments:
        flag, sign, value = word.partition("=")
        # tyro takes --some_flag for --some-flag, so an old flag is known in both spellings.
        if new := RENAMED_FLAGS.get(flag.replace("_", "-")):
            hint_at_new_name(flag, new)
            word = f"{new}{sign}{value}"
        renamed.append(word)
    return renamed


def hint_at_new_name(old: str, new: str) -> None:
    """Say on standard error that a name is to be replaced."""
    print(f"note: {old} is called {new} now; the next version will not know the old name", file=sys.stderr)


def flag_given(arguments: Sequence[str], setting: str) -> bool:
    """Return whether a command line has the flag of a setting, as --some-setting or --some_setting."""
    return any(word.partition("=")[0].replace("_", "-") == f"--{setting.replace('_', '-')}" for word in arguments)
