"""Each benchmark's smallest configuration runs and prints its tables; no figure is asserted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import conv2d, conv_transpose2d, linear

from tests.conftest import run
from trainer.gan.flops import Flops

COMMANDS = {
    "loading": ("--samples", "256", "--turns", "1"),
    "loading_256": ("--batches", "4", "--turns", "1", "--encodings", "webp"),
    "streaming": ("--pictures", "64", "--workers", "1", "--turns", "1"),
    "scale": ("--shards", "10000"),
    "step": ("--recipe", "dcgan-32", "--batch-size", "4", "--micro-batch-size", "2", "--turns", "1"),
    "zoo": ("--recipes", "dragan-64", "--small", "--turns", "1", "--seconds", "0.1"),
    "launches": ("--recipes", "dcgan-32"),
    "style_operations": ("--samples", "2", "--sides", "8", "--channels", "6", "--turns", "1"),
    "stalls": ("--recipe", "dcgan-32", "--seconds", "1"),
    "training": ("--recipe", "dcgan-32", "--steps", "4", "--turns", "1"),
    "reduction": ("--megabytes", "1", "--turns", "1", "--cases", "2", "3"),
    "scaling": ("--no-model", "--recipe", "dcgan-32", "--micro-batch-size", "2", "--processes", "2", "--turns", "1"),
    "recovery": ("--recipe", "dcgan-32", "--turns", "1"),
    "checkpoint": ("--recipe", "dcgan-32", "--turns", "1"),
    "serving": ("--recipe", "dcgan-32", "--size", "32", "--requests", "4", "--clients", "2", "--turns", "1"),
    "evaluation": ("--num-samples", "16", "--few", "8", "--processes", "1", "--turns", "1"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_prints_a_table(name: str, tmp_path: Path) -> None:
    source: tuple[str, ...] = ()
    if name in ("loading", "loading_256", "stalls", "training", "recovery", "evaluation"):
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


@pytest.mark.parametrize("groups", [1, 2])
def test_arithmetic_is_counted_as_by_hand(groups: int) -> None:
    """A convolution of F: forward F; the gradient against x F; its penalty, F for each gradient that passes it."""
    x, weight = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(6, 4 // groups, 3, 3, requires_grad=True)
    one = 2 * (2 * 6 * 8 * 8) * (4 // groups * 3 * 3)  # two for each multiplication, of each of the outputs
    with Flops() as flops:
        y = conv2d(x, weight, padding=1, groups=groups)
    assert flops.total == one
    with Flops() as flops:
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    assert flops.total == one
    with Flops() as flops:
        gradient.square().sum().backward()
    # Of the gradient: against the weight, and against 2 y. From there, of y: against the weight, and against x.
    assert flops.total == 4 * one


def test_arithmetic_of_other_layers_is_counted_as_by_hand() -> None:
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(4, 6, 4, 4, requires_grad=True)
    one = 2 * (2 * 4 * 8 * 8) * (6 * 4 * 4)
    matrix = torch.randn(5, 16 * 16, requires_grad=True)
    product = 2 * (2 * 6) * 5 * 16 * 16
    with Flops() as flops:
        y = linear(conv_transpose2d(x, weight, stride=2, padding=1).flatten(2), matrix)
    assert flops.total == one + product
    with Flops() as flops:
        y.sum().backward()
    assert flops.total == one + 2 * product
