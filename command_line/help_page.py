"""What `--help` shows of a command: one screen, with examples. `--help-all` shows all that it takes."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from command_line.options import Option, options_of
from command_line.program import as_typed

WIDTH = 100
LEAST_WIDTH = 60  # of a terminal that is narrower, which breaks the lines itself
COLUMN = 26  # for names and values; longer ones have a line of their own
UNBROKEN: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": False}
SENTENCE_END = re.compile(r"(?<=[.]) (?=[A-Z])")


@dataclass(frozen=True)
class HelpPage:
    """What a command's class says of its page, as `help_page`. All other text is that of its docstrings."""

    examples: Mapping[str, str]
    """What may be typed after the command, and what that does."""
    everyday: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The options that people use, such as --nodes, by heading; none: the page shows all that there are."""
    kept: tuple[str, ...] = ()
    """Of these, what is not given stays as it is: the page shows no default."""


def render(kind: Any, prog: str) -> str:
    """Return the page of a command.

    Args:
        kind: its dataclass, with `help_page`.
        prog: the command, as it is typed.
    """
    page: HelpPage = kind.help_page
    options = {option.name: option for option in options_of(kind)}
    width = max(LEAST_WIDTH, min(WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns))
    places = [option for option in options.values() if option.positional]
    named = {heading: [options[name] for name in names] for heading, names in page.everyday.items()}
    groups = named or {"options": [option for option in options.values() if not option.positional]}
    shown = [*places, *(option for group in groups.values() for option in group)]
    column = max((len(option.invocation) for option in shown if len(option.invocation) <= COLUMN), default=0)
    lines = [*usage(prog, list(options.values()), width), "", *textwrap.wrap(description(kind), width, **UNBROKEN)]
    for heading, group in {"": places, **groups}.items():
        lines += ["", *([f"{heading}:"] if heading else [])] if group else []
        for option in group:
            lines += entry(option, column, width, page)
    lines += ["", "examples:", *examples(page, prog, width)]
    if len(shown) < len(options):
        lines += ["", f"{prog} --help-all shows all {len(options)} settings."]
    return "\n".join(lines)


def usage(prog: str, options: list[Option], width: int) -> list[str]:
    """Return the lines that say what must be given, and what may be."""
    words = [f"usage: {prog}"]
    for option in options:
        if option.default is MISSING and not option.positional:
            words.append(option.invocation)
    if any(not option.positional and option.default is not MISSING for option in options):
        words.append("[OPTIONS]")
    for option in options:
        if option.positional:
            words.append(option.invocation if option.default is MISSING else f"[{option.invocation}]")
    return textwrap.wrap(" ".join(words), width, subsequent_indent="    ", **UNBROKEN)


def description(kind: type) -> str:
    """Return what a command does: the first paragraph of its docstring."""
    return " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())


def entry(option: Option, column: int, width: int, page: HelpPage) -> list[str]:
    """Return the lines about one option; where the page shows only some, the first sentence of its docstring."""
    text = as_typed(SENTENCE_END.split(option.meaning)[0] if page.everyday else option.meaning)
    indent = " " * (column + 4)
    lines = textwrap.wrap(
        text + note(option, text, page), width, initial_indent=indent, subsequent_indent=indent, **UNBROKEN
    )
    if len(option.invocation) > column:
        # Many choices break after a comma.
        typed = option.invocation if len(option.invocation) < width - 2 else option.invocation.replace(",", ", ")
        return [*textwrap.wrap(typed, width, initial_indent="  ", subsequent_indent="      ", **UNBROKEN), *lines]
    return [f"  {option.invocation:<{column}}  {lines[0].lstrip()}", *lines[1:]]


def note(option: Option, text: str, page: HelpPage) -> str:
    """Return what is to be added to the text about an option: that it must be given, or its default."""
    value = option.default
    if value is MISSING:
        return "" if option.positional else " (required)"
    if option.name in page.kept or "default" in text.lower() or isinstance(value, bool) or value in (None, (), ""):
        return ""
    return f" (default: {shown_value(value)})"


def shown_value(value: Any) -> str:
    """Return a default as it would be typed."""
    if isinstance(value, tuple):
        return " ".join(map(shown_value, value))
    if isinstance(value, Path) and value.is_relative_to(Path.home()):
        return f"~/{value.relative_to(Path.home())}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def examples(page: HelpPage, prog: str, width: int) -> Iterator[str]:
    """Yield the examples, as they can be typed: what each does is a comment of the shell."""
    commands = {f"{prog} {words}".rstrip(): does for words, does in page.examples.items()}
    longest = max(map(len, commands))
    lines = [f"  {command:<{longest}}  # {does}" for command, does in commands.items()]
    if max(map(len, lines)) <= width:
        yield from lines
    else:
        for command, does in commands.items():
            yield from (f"  # {does}", f"  {command}")
