"""What `status` and `watch` show, safe for a terminal."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment

from command_line.printable import printable


class Escaped:
    """Whatever is shown, with the control characters in its text escaped, and its strings taken as they stand.

    Run folders hold names, nodes and reasons from strangers, in more places than one would escape one by one.

    Args:
        shown: tables, texts or groups of them.
    """

    def __init__(self, shown: RenderableType) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what is shown; colours and links are no text, and stay."""
        for part in console.render(self.shown, options.update(markup=False)):
            yield part if part.control else Segment(printable(part.text), part.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return how wide it is."""
        return Measurement.get(console, options.update(markup=False), self.shown)
