"""The pages of --help: one screen for each command, true to what the command takes; --help-all has all of it."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import tyro

from command_line import arguments
from command_line.arguments import parse
from command_line.help_page import HelpPage, render
from command_line.options import inverse, options_of
from launcher.__main__ import COMMANDS
from launcher.program import VERBS

PROGRAMS = [
    *([package, verb] for package, verbs in VERBS.items() for verb in verbs),
    *(["launcher", command] for command in COMMANDS),
    ["launcher", "prepare", "index"],
]


@dataclass(frozen=True)
class Shown:
    kind: Any
    text: str


def said(*words: str) -> str:
    """Return what a command prints, which ends with exit code 0."""
    with redirect_stdout(StringIO()) as out, pytest.raises(SystemExit, match="0"):
        import_module(f"{words[0]}.__main__").main(words[1:])
    return out.getvalue()


def listed(package: str) -> str:
    """Return what a package says of its commands."""
    with redirect_stdout(StringIO()) as out, suppress(SystemExit):
        import_module(f"{package}.__main__").main(["--help"])
    return out.getvalue()


@pytest.fixture(scope="module")
def pages() -> dict[str, Shown]:
    """The page of each command, by the command as it is typed, and the dataclass that it is of."""
    found: dict[str, Shown] = {}

    def note(kind: Any, prog: str) -> str:
        found[prog] = Shown(kind, text := render(kind, prog))
        return text

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        patch.setattr(arguments, "render", note)
        for words in PROGRAMS:
            assert said(*words, "--help").rstrip() == [*found.values()][-1].text
    assert [*found] == [f"python -m {' '.join(words)}" for words in PROGRAMS]
    return found


def test_each_fits_a_screen_and_has_examples(pages: dict[str, Shown]) -> None:
    wrong = {}
    for prog, shown in pages.items():
        lines = shown.text.splitlines()
        if len(lines) > 40 or max(map(len, lines)) > 100:
            wrong[prog] = (len(lines), [line for line in lines if len(line) > 100])
        assert lines[0].startswith(f"usage: {prog} ") or lines[0] == f"usage: {prog}"
        examples = [line for line in lines[lines.index("examples:") :] if line.startswith(f"  {prog}")]
        assert 1 <= len(examples) <= 3, prog
    assert wrong == {}


def test_what_lists_the_commands_fits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for package, verbs in {**VERBS, "launcher": (*COMMANDS,)}.items():
        text = listed(package)
        lines = text.splitlines()
        assert len(lines) <= 40, package
        assert max(map(len, lines)) <= 100, package
        assert f"python -m {package} COMMAND --help" in text
        assert all(re.search(rf"^[ │•]+{verb} ", text, re.MULTILINE) for verb in verbs), package


def test_examples_parse(pages: dict[str, Shown]) -> None:
    for prog, shown in pages.items():
        for words in shown.kind.help_page.examples:
            assert isinstance(parse(shown.kind, shlex.split(words), prog), shown.kind)


def test_help_all_has_every_option(pages: dict[str, Shown]) -> None:
    """What the pages count and name is what tyro takes."""
    for prog, shown in pages.items():
        full = said(*prog.split()[2:], "--help-all")
        assert "show one screen of this, with examples" in full
        named = {*re.findall(r"^  (?:-[a-z], )?(--[a-z][^ ,]*)", full, re.MULTILINE)}
        options = [*options_of(shown.kind)]
        assert {option.name for option in options if not option.positional} == named - {"--help"}, prog
        if "--help-all" in shown.text:
            assert shown.text.splitlines()[-1] == f"{prog} --help-all shows all {len(options)} settings."
        else:
            assert all(option.name in shown.text for option in options if not option.positional), prog


Words = Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORD")]


@dataclass(frozen=True)
class Group:
    deep: bool = True
    """Whether it is deep."""


@dataclass(frozen=True)
class Inherited:
    """What a command does: one thing.

    Nobody reads this at first."""

    rate: float = 1e-5
    """How fast. It is not shown
    in full."""
    hidden: Annotated[str, tyro.conf.Suppress] = ""
    """Never seen."""


@dataclass(frozen=True)
class Example(Inherited):
    __doc__ = Inherited.__doc__
    help_page: ClassVar[HelpPage] = HelpPage(
        {"a b": "two places"},
        {"some": ("--rate", "--out-file", "--group.deep", "--as", "--kept", "--name")},
        kept=("--kept",),
    )
    places: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Where."""
    out_file: Path | None = None
    """What to write; default: nothing."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Also left out."""
    style: Annotated[Literal["oil", "ink"], tyro.conf.arg(name="as")] = "oil"
    """Of it."""
    kept: int = 3
    """As it was."""
    names: Annotated[Words, tyro.conf.arg(name="name", metavar="NAME")] = ()
    """See python -m launcher recipes."""
    left: int = 3
    """Left out of the page."""
    group: Group = Group()


PAGE = """\
usage: python -m x [OPTIONS] [PLACES ...]

What a command does: one thing.

  PLACES ...       Where.

some:
  --rate FLOAT     How fast. (default: 1e-05)
  --out-file PATH  What to write; default: nothing.
  --group.deep, --group.no-deep
                   Whether it is deep.
  --as {oil,ink}   Of it. (default: oil)
  --kept INT       As it was.
  --name NAME ...  See python -m launcher recipes.

examples:
  python -m x a b  # two places

python -m x --help-all shows all 9 settings."""


def test_a_page_is_made_of_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert render(Example, "python -m x") == PAGE
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lienzo"])
    assert "See lienzo recipes." in render(Example, "lienzo x")
    assert inverse("--ema") == "--no-ema"
    assert "-q" in [option.invocation.partition(",")[0] for option in options_of(Example)]


def test_a_narrow_terminal_gets_narrow_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    text = said("slurm", "up", "--help")
    assert 60 < max(map(len, text.splitlines())) <= 72


def test_a_mistake_is_answered_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(Example, ["--out-fill", "x"], "python -m x")
    assert "--out-file" in capsys.readouterr().err


def test_help_is_found_anywhere_on_a_command_line() -> None:
    assert said("shards", "build", "PICTURES", "-h").startswith("usage: python -m shards build --out PATH|URL ")
    assert (
        "{build,index,verify,inspect}"
        in said("shards", "--help")
        == said("shards", "--help-all").replace("show one screen of this, with examples", arguments.OF_HELP)
    )
