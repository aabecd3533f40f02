"""What messages tell people to do, found in the source: one that is new, or reworded, must be done by a test."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import pytest

from tests.conftest import HOME

VERBS = (
    "add ask begin build cancel copy cut edit end free get give go goes install join keep leave look make mend mount "
    "move name put remove resume run save say send set start take takes try unpack unset update use wait watch "
    "write"
)
# What tells people to do something: a verb where a sentence or a part of one begins, an option, or a command.
ADVICE = re.compile(
    rf"(?:^|[:;,.] |\bor |\band |--[a-z.-]+ |[(`])(?:{VERBS.replace(' ', '|')})\b"
    r"|(?:[;:,.]|\bor) --[a-z]|\bonly with --|\bwithout --|python -m |pip install"
    r"|the same command|sample them|with: |see: ",
    re.IGNORECASE,
)
SQL = re.compile(r"^\s*(CREATE|INSERT|SELECT|UPDATE) ")


def messages(tree: ast.Module) -> Iterator[str]:
    """Yield the strings of a module that are no docstrings, with {} for what is filled in.

    What classes say of their pages of --help is left out: tests/test_help.py parses the examples.
    """
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or is_help_page(node):
            left_out |= {id(part) for part in ast.walk(node)} - {id(node)}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_help_page(node: ast.AST) -> bool:
    """Return whether a part of a module is the call that makes a page of --help."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "HelpPage"


def all_messages(*packages: str) -> list[str]:
    """Return the messages of packages: strings of several words."""
    files = [path for package in packages for path in sorted((HOME / package).rglob("*.py"))]
    found = [message for path in files for message in messages(ast.parse(path.read_text()))]
    return [message for message in found if " " in message.strip() and not SQL.search(message)]


def advice(*packages: str) -> list[str]:
    """Return the messages that tell people to do something."""
    return [message for message in all_messages(*packages) if ADVICE.search(message)]


def not_done(given: Sequence[str], parts: Collection[str]) -> list[str]:
    """Return the messages of which no part is known."""
    return [message for message in given if not any(part in message for part in parts)]


def no_longer_given(given: Sequence[str], parts: Collection[str]) -> list[str]:
    """Return the parts that are in no message any more."""
    return [part for part in parts if not any(part in message for message in given)]


def named_test(name: str) -> Callable[..., Any]:
    """Return the test function of a name such as test_sampling.test_ways_are_smooth."""
    module, _, function = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"tests.{module}"), function)
    return found


def do(command: str, *more: str) -> int:
    """Run a command that a message has printed, as a shell would read it, and return its exit code."""
    python, dash_m, package, *arguments = shlex.split(command)
    assert (python, dash_m) == ("python", "-m"), command
    code: int = importlib.import_module(f"{package}.__main__").main([*arguments, *more])
    return code


def refusal(capsys: pytest.CaptureFixture[str], command: str, *more: str) -> str:
    """Run a command that is refused, and return what it says."""
    capsys.readouterr()
    assert do(command, *more) == 2
    said = capsys.readouterr().err.rpartition("refused: ")[2].rstrip("\n")
    assert said
    assert len(said) < 2000, "longer than a screen"
    return said


def told(said: str, before: str) -> str:
    """Return what follows these words in the line that has them: a command that is told last."""
    lines = [line for line in said.splitlines() if before in line]
    assert lines, said
    return lines[-1].partition(before)[2]
