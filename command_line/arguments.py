"""Parse a command line with tyro, with three additions.

- `~` means the home folder in every path: a shell does not expand it in --run=~/x.
- Flags that were renamed are still understood, with a hint.
- `--help` shows one screen of what a command takes, with examples (help_page.py); `--help-all` shows all.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from command_line.help_page import render
from command_line.options import given_name, without_marks
from command_line.program import as_typed


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

HELP, HELP_ALL = ("-h", "--help"), "--help-all"
OF_HELP = "show this help message and exit"  # what tyro says of --help, on what is the page of --help-all here

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
    """Parse a command line; on --help, --help-all or a mistake, print what it takes, and exit.

    Args:
        kind: a dataclass, or a union of them as subcommands.
        arguments: without the program; None: those of this process.
        prog: the command, `python -m` and so on; it is shown as the user has typed it, and so are those of texts.
        default: an instance with the values of flags that are not given.
        description: of the command, for --help.
        config: markers of tyro.

    Returns:
        An instance of `kind`.
    """
    # Before tyro sees them: it refuses a flag that it does not know.
    words = rename_flags(sys.argv[1:] if arguments is None else arguments)
    if not {*HELP}.isdisjoint(words) and HELP_ALL not in words:
        show_page(kind, words, as_typed(prog))
    read = partial(
        tyro.cli,
        kind,
        default=default,
        prog=as_typed(prog),
        description=description and as_typed(description),
        config=config,
        registry=PATHS,
    )
    return show_all(read, words) if HELP_ALL in words else read(args=words)


def show_all(read: Callable[..., Any], words: Sequence[str]) -> Any:
    """Print all that a command takes, and exit."""
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            return read(args=["--help" if word == HELP_ALL else word for word in words])
    finally:
        print(said.getvalue().replace(OF_HELP, "show one screen of this, with examples"), end="")


def show_page(kind: Any, words: Sequence[str], prog: str) -> None:
    """Print the page of a command that has one, and exit; of several commands, that of the one that is named."""
    for member in (kind,) if is_dataclass(kind) else get_args(kind):
        command, marks = without_marks(member)
        name = given_name(marks, command.__name__.lower())
        if hasattr(command, "help_page") and (command is kind or [*words[:1]] == [name]):
            print(render(command, prog if command is kind else f"{prog} {name}"))
            sys.exit(0)


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
