"""The protocols by name, and what each is tried with."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.benchmark.digits import StackedDigits
from trainer.benchmark.mixtures import GRID, RING
from trainer.benchmark.protocol import Protocol
from trainer.benchmark.recipes import DIGITS, POINTS, Trial

PROTOCOLS: dict[str, Protocol] = {"ring": RING, "grid": GRID, "digits": StackedDigits()}
RECIPES: dict[str, Mapping[str, Trial]] = {"ring": POINTS, "grid": POINTS, "digits": DIGITS}
