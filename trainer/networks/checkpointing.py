"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): backward passes compute activations of blocks again.

The same bits as without: all draws are inputs, weights normalised by their spectral norm are those of the first time,
and BatchNorm counts the first time alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from trainer.networks.batch_statistics import MeasuringLayer
from trainer.networks.spectral_norm import SpectralNorm


def checkpointed(block: nn.Module, *inputs: Any) -> Any:
    """Call a block and keep its inputs alone; whatever else its backward pass wants is computed again."""
    weights = normalised_in(block)
    layers = [layer for layer in block.modules() if isinstance(layer, MeasuringLayer)]
    contexts = Replay(weights, layers, again=False), Replay(weights, layers, again=True)
    # No generator is used inside; else its state would be copied from the device each time.
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: contexts)


def normalised_in(block: nn.Module) -> list[tuple[SpectralNorm, Tensor]]:
    """Return the spectral norms of a block with what they make of their weights, computed outside of the block."""
    found = []
    for layer in block.modules():
        if parametrize.is_parametrized(layer, "weight"):
            (norm,) = layer.get_submodule("parametrizations.weight").children()
            weight = getattr(layer, "weight")  # noqa: B009  # for the type checker no module
            if isinstance(norm, SpectralNorm):
                found.append((norm, weight))
    return found


class Replay(AbstractContextManager[None]):
    """What holds while a block runs, for the first time or again; it can be entered many times."""

    def __init__(
        self, weights: Sequence[tuple[SpectralNorm, Tensor]], layers: Sequence[MeasuringLayer], again: bool
    ) -> None:
        self.weights, self.layers, self.again = weights, layers, again
        self.counted = [layer.counts for layer in layers]
        self.outside: list[bool] = []

    def __enter__(self) -> None:
        for norm, weight in self.weights:
            norm.given = weight
        self.outside = [layer.counts for layer in self.layers]
        if self.again:
            self.set_layers(True, self.counted)

    def __exit__(self, *error: object) -> None:
        for norm, _ in self.weights:
            norm.given = None
        if self.again:
            self.set_layers(False, self.outside)

    def set_layers(self, repeats: bool, counts: Sequence[bool]) -> None:
        """Tell each measuring layer whether it repeats a pass, and whether passes count."""
        for layer, counted in zip(self.layers, counts, strict=True):
            layer.repeats, layer.counts = repeats, counted
