"""How far a build is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_EVERY_S = 5.0


class Progress:
    """Tells on standard error how many of `total` pictures are done.

    Args:
        total: pictures, those of an earlier attempt included.
        before: pictures that an earlier attempt has done.
    """

    def __init__(self, total: int, before: int) -> None:
        self.total, self.before, self.done = total, before, before
        self.started = self.said = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=before, unit=" pictures", disable=not self.terminal, smoothing=0.1)

    def add(self, pictures: int) -> None:
        """Count the pictures of a finished shard."""
        self.done += pictures

    def show(self, ahead: int) -> None:
        """Tell where things stand, with so many pictures done of unfinished shards."""
        done = self.done + ahead
        self.bar.update(done - self.bar.n)
        now = time.monotonic()
        if not self.terminal and now > self.said + LINE_EVERY_S:
            self.said = now
            speed = (done - self.before) / (now - self.started)
            left = f", {(self.total - done) / speed:,.0f} s left" if speed else ""
            print(f"{done:,} of {self.total:,} pictures, {speed:,.0f}/s{left}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self.bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the last state of the bar on the terminal."""
        self.bar.close()


class ListingProgress:
    """Tells on standard error how many files a source listed."""

    def __init__(self) -> None:
        self.said = time.monotonic()

    def __call__(self, found: int) -> None:
        """Tell that so many files were found."""
        if found % 1024 == 0 and time.monotonic() > self.said + LINE_EVERY_S:
            self.said = time.monotonic()
            print(f"listing the source: {found:,} files", file=sys.stderr, flush=True)
