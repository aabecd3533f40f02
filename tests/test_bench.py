"""Each benchmark's smallest configuration runs and prints its tables; no figure is asserted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import run

COMMANDS = {
    "loading": ("--samples", "256", "--turns", "1"),
    "step": ("--recipe", "dcgan-32", "--batch-size", "4", "--micro-batch-size", "2", "--turns", "1"),
    "training": ("--recipe", "dcgan-32", "--steps", "4", "--turns", "1"),
    "reduction": ("--megabytes", "1", "--turns", "1", "--cases", "2", "3"),
    "recovery": ("--recipe", "dcgan-32", "--turns", "1"),
    "checkpoint": ("--recipe", "dcgan-32", "--turns", "1"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_prints_a_table(name: str, tmp_path: Path) -> None:
    source: tuple[str, ...] = ()
    if name in ("loading", "training", "recovery"):
        for i in range(70):
            pixels = np.random.default_rng(i).integers(0, 256, (70, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        source = ("--source", str(tmp_path))
    result = run(f"bench.{name}", *COMMANDS[name], *source)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "torch" in lines[0]
    assert sum(line.startswith("| ") for line in lines) >= 2
    assert "nan" not in result.stdout
