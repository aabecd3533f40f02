"""Where status, studies and recipes print their tables; three commands use it, so it is in none of them."""

from __future__ import annotations

from rich.console import Console

WIDTH = 1000


def wide_console() -> Console:
    """Return where to print: what is not a terminal is wide, so that nothing is cut."""
    console = Console(highlight=False)
    # rich takes 80 columns where there is no terminal: in a pipe or a file, paths and reasons would lose their ends.
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)
