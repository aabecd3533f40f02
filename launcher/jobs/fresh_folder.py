"""The folder of a new run: one that nobody else has."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder


@contextmanager
def open_run_folder(named: Path | None, recipe: str) -> Iterator[RunFolder]:
    """Give the folder of a run: the one that is named, else a fresh one, which is removed if it stays empty.

    Raises:
        Refused: none can be made.
    """
    if named:
        yield RunFolder(named)
        return
    # Made at once, though empty: two submissions in the same second must not share a folder.
    path = make_fresh_folder(Path("runs") / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        yield RunFolder(path)
    finally:
        with suppress(OSError):  # it holds a run
            path.rmdir()
            path.parent.rmdir()  # unless it holds others


def make_fresh_folder(proposed: Path) -> Path:
    """Make a folder that nobody else has, of this name or with a number behind it.

    Raises:
        Refused: none can be made.
    """
    path = proposed
    try:
        for number in itertools.count(2):
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                path = proposed.with_name(f"{proposed.name}-{number}")
    except OSError as error:
        raise Refused(f"the run folder {path} cannot be made: {error.strerror}; name another --run") from error
    return path
