"""How long training stood still, and for what: shares of the time between two logged steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Cause = Literal["samples", "collapse", "checkpoint", "evaluation"]
CAUSES: tuple[Cause, ...] = ("samples", "collapse", "checkpoint", "evaluation")


class Stalls:
    """Adds up what the thread that trains spends on anything else."""

    def __init__(self) -> None:
        self.spent_s = dict.fromkeys(CAUSES, 0.0)
        self.total_s = dict.fromkeys(CAUSES, 0.0)

    @contextmanager
    def during(self, cause: Cause) -> Iterator[None]:
        """Count what is inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.spent_s[cause] += spent
            self.total_s[cause] += spent

    def shares(self, interval_s: float) -> dict[str, float]:
        """Return the shares of an interval that ends now, and begin the next one."""
        shares = {f"stall/{cause}": round(spent / interval_s, 5) for cause, spent in self.spent_s.items()}
        self.spent_s = dict.fromkeys(CAUSES, 0.0)
        return shares
