"""The progress of an indexing on standard error: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from shards.building.progress import LINE_INTERVAL_S


class TarProgress:
    """Shows how many tars are done.

    Args:
        total: tars.
        todo: those that earlier attempts have not finished.
    """

    def __init__(self, total: int, todo: int) -> None:
        self.total, self.done, self.pictures = total, total - todo, 0
        self.started = self.said = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=self.done, unit=" tars", disable=not self.terminal, smoothing=0.1)

    def add(self, pictures: int) -> None:
        """Add a finished tar."""
        self.done += 1
        self.pictures += pictures
        self.bar.update(1)

    def show(self, ahead: int) -> None:
        """Show the progress; `ahead` pictures of unfinished tars are done as well."""
        now = time.monotonic()
        pictures = self.pictures + ahead
        self.bar.set_postfix_str(f"{pictures:,} pictures")
        if not self.terminal and now > self.said + LINE_INTERVAL_S:
            self.said = now
            speed = pictures / (now - self.started)
            print(f"{self.done:,} of {self.total:,} tars, {speed:,.0f} pictures/s", file=sys.stderr, flush=True)

    def print_line(self, text: str) -> None:
        """Print a line above the bar."""
        self.bar.write(text, file=sys.stderr)
