"""Which signals a command handles; trainings, studies and builds answer signals in their own way, and ask it too."""

from __future__ import annotations

import signal
from collections.abc import Iterable


def signals_to_handle(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Return the signals to handle: all but SIGHUP where it is ignored, because nohup ignores it on purpose."""
    return [n for n in numbers if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
