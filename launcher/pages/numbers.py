"""Numbers as people read them."""

from __future__ import annotations

import math


def format_number(value: float, width: float = 0.0, signed: bool = False) -> str:
    """Write a number to two digits of half a width, or to four of its own."""
    size = width / 2 or abs(value)
    decimals = 0 if not size else min(6, max(0, (1 if width else 3) - math.floor(math.log10(size))))
    return f"{value:{'+' if signed else ''},.{decimals}f}".replace("-", "−")


def format_hours(value: float | None) -> str:
    """Write hours."""
    return "–" if value is None else f"{value:,.3g} h"
