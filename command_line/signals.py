"""Signals that a command answers in its own way."""

from __future__ import annotations

import signal
from collections.abc import Iterable


def signals_to_handle(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Return those to handle: not SIGHUP where it is ignored, for that is what nohup is asked for."""
    return [n for n in numbers if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
