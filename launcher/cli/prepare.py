"""`launcher prepare`: make a dataset by jobs on a cluster; `launcher resume` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.prepare.arguments import parse_prepare
from launcher.prepare.control import begin_preparation, resume_preparation


def run_prepare(arguments: Sequence[str]) -> int:
    """Carry out `prepare`.

    Raises:
        Refused: something is wrong; nothing was started.
    """
    return begin_preparation(parse_prepare(arguments), arguments)


def run_resume_preparation(path: Path, arguments: Sequence[str]) -> int:
    """Carry out `resume` of a preparation; what else stands on the command line is of `prepare`.

    Raises:
        Refused: something is wrong; nothing was started.
    """
    more = [*arguments]
    more.remove(next(word for word in more if not word.startswith("-") and Path(word) == path))
    return resume_preparation(path, more)
