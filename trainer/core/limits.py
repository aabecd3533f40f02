"""What a number or a text may be: declared beside each setting, checked and said in one way."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MOST = 2**53  # beyond, JSON and what draws figures round whole numbers


@dataclass(frozen=True)
class Limits:
    """An interval such as "[0, 1)" or "(0, inf)"."""

    text: str

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest."""
        match = re.fullmatch(r"[\[(](\S+), (\S+)[\])]", self.text)
        assert match, self.text
        return float(match[1]), float(match[2])

    def hold(self, value: float) -> bool:
        """Tell whether a value lies within; nothing that is not finite does, nor a whole number from MOST on."""
        low, high = self.ends
        if not (math.isfinite(value) if isinstance(value, float) else abs(value) < MOST):
            return False
        return (low <= value if self.text[0] == "[" else low < value) and (
            value <= high if self.text[-1] == "]" else value < high
        )

    def words(self, value: float) -> str:
        """Say what a value that does not hold must be."""
        low, high = self.ends
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if isinstance(value, int) and low <= value < math.inf and high == math.inf:
            return f"must be below {MOST:,}"
        if high < math.inf:
            return f"must be in {self.text}"
        if low == 0:
            return "must not be negative" if self.text[0] == "[" else "must be positive"
        return "must be positive" if low == 1 and isinstance(value, int) else f"must be at least {low:g}"
