"""The progress of a build on standard error: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_INTERVAL_S = 5.0


class Progress:
    """Shows how many of `total` pictures are done.

    Args:
        total: pictures of the build, including those of earlier attempts.
        before: pictures that earlier attempts have finished; they do not count for the speed.
    """

    def __init__(self, total: int, before: int) -> None:
        self.total, self.before, self.done = total, before, before
        self.started = self.said = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=before, unit=" pictures", disable=not self.terminal, smoothing=0.1)

    def add(self, pictures: int) -> None:
        """Add the pictures of a finished shard."""
        self.done += pictures

    def show(self, ahead: int) -> None:
        """Show the progress; `ahead` pictures of unfinished shards are done as well."""
        done = self.done + ahead
        self.bar.update(done - self.bar.n)
        now = time.monotonic()
        if not self.terminal and now > self.said + LINE_INTERVAL_S:
            self.said = now
            speed = (done - self.before) / (now - self.started)
            left = f", {(self.total - done) / speed:,.0f} s left" if speed else ""
            print(f"{done:,} of {self.total:,} pictures, {speed:,.0f}/s{left}", file=sys.stderr, flush=True)

    def print_line(self, text: str) -> None:
        """Print a line above the bar."""
        self.bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """End the bar, which stays on the terminal."""
        self.bar.close()


class ListingProgress:
    """Shows how many files of the source are listed so far."""

    def __init__(self) -> None:
        self.said = time.monotonic()

    def __call__(self, listed: int) -> None:
        """Show that so many files were listed, if it is time for a line."""
        if listed % 1024 == 0 and time.monotonic() > self.said + LINE_INTERVAL_S:
            self.said = time.monotonic()
            print(f"listing the source: {listed:,} files", file=sys.stderr, flush=True)
