"""What the doctor says of one thing: measured, what it means, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's report."""

    check: str
    state: State
    measured: str
    meaning: str = ""
    todo: str = ""


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names as text, not all of very many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def format_seconds(value: float) -> str:
    """Return a time in words, in a unit that suits it."""
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h" if value < 72 * 3600 else f"{value / 86400:,.0f} days"


def format_bytes(value: float) -> str:
    """Return bytes in words."""
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.0f} MB"
