"""The rows of the live view: which columns there are, how wide, and what stands in them."""

from __future__ import annotations

from rich.text import Text

from launcher.status import words
from launcher.watch.watched import Watched, sparkline
from trainer.tracking.console import format_duration

COLUMNS = {"run": 15, "state": 12, "done": 4, "images/s": 8, "": 10, "left": 7, "alerts": 6}
"""Each with its width in a terminal of 80 columns."""
PADDING = 2
LONGEST_STATE = 22


def column_widths(terminal: int) -> dict[str, int]:
    """Return the widths in so many columns: what there is beyond 80 goes to states, then to names, then to speeds."""
    widths = dict(COLUMNS)
    more = max(0, terminal - sum(COLUMNS.values()) - PADDING * len(COLUMNS) - 2)  # 2: a bar to scroll with
    for name, most in (("state", LONGEST_STATE), ("run", 40), ("", 30)):
        given = min(more, most - widths[name])
        widths[name] += given
        more -= given
    return widths


def cells(watched: Watched, widths: dict[str, int]) -> dict[str, Text]:
    """Return what stands in each column."""
    style = words.style(watched.state)
    count = len(watched.alerts)
    return {
        "run": Text(shorten(watched.name, widths["run"])),
        "state": fitted(watched.state_words, style),
        "done": Text("" if watched.done is None else f"{min(1.0, watched.done):.0%}", justify="right"),
        "images/s": Text(speed(watched.per_s), justify="right"),
        "": Text(sparkline(watched.speeds, widths[""]), "dim" if watched.per_s is None else ""),
        "left": Text("" if watched.left_s is None else format_duration(watched.left_s), justify="right"),
        # A mark besides the colour, which not all terminals show.
        "alerts": Text(f"! {count}" if count else "", "bold red"),
    }


def speed(per_s: float | None) -> str:
    """Return a speed in few letters."""
    if per_s is None:
        return ""
    return words.short(round(per_s)) if per_s >= 100_000 else f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.1f}"


def fitted(text: str, style: str) -> Text:
    """Return a text of which the end is left out where there is no room."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def shorten(name: str, width: int) -> str:
    """Return a name whose middle is left out where it is too long: runs differ at both ends."""
    if len(name) <= width:
        return name
    tail = (width - 1) * 2 // 3
    return f"{name[: width - 1 - tail]}…{name[-tail:]}"
