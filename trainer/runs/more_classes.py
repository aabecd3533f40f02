"""Weights of a run on a dataset that was extended since (`shards build --add`), where there are more classes now.

Old classes keep their numbers there, so what the networks know of each is taken; new ones keep their own first values.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from shards.dataset.index import parse_index, read_index
from trainer.config.config import Config
from trainer.core.migration import load_json
from trainer.gan.state import TrainState
from trainer.networks import equalized
from trainer.runs.checkpoint import TENSORS, VALUES
from trainer.runs.weight_files import DISCRIMINATOR, network_shapes

Shapes = dict[str, tuple[int, ...]]


def classes_before(config: Config, file: Path) -> int:
    """Return how many classes there were when weights were trained, if this run's dataset extends theirs; else 0.

    Args:
        config: of the run that takes the weights.
        file: that holds them.
    """
    values = file.parent / VALUES
    if not config.network.classes or config.data is None or file.name != TENSORS or not values.exists():
        return 0
    trained_on = load_json(values)["dataset"]
    steps = parse_index(config.data, read_index(config.data)).get("added_to", [])
    return next((int(step["classes"]) for step in steps if step["index"] == trained_on), 0)


def shapes_before(config: Config, classes: int) -> Shapes:
    """Return the shapes of this run's networks for fewer classes; empty: there were no fewer."""
    if not 0 < classes < config.network.classes:
        return {}
    return dict(network_shapes(replace(config, network=replace(config.network, classes=classes)), with_vectors=False))


def take_old_classes(state: TrainState, name: str, mine: Tensor, theirs: Tensor) -> None:
    """Copy what a tensor for fewer classes says of these, and of an unknown class, which is the last one in both.

    Args:
        state: of the run, for the networks.
        name: of the tensor.
        mine: the run's own; the new classes keep what it has.
        theirs: it differs from that in one dimension.
    """
    (axis,) = (axis for axis in range(mine.dim()) if mine.shape[axis] != theirs.shape[axis])
    before, now = theirs.shape[axis], mine.shape[axis]
    unknown = 0 if now == state.generator.settings.classes else 1  # the classifier guesses none
    layer = layer_of(state, name)
    if isinstance(layer, equalized.Linear) and axis == 1:
        theirs = theirs * math.sqrt(now / before)  # its weights are divided by the root of the inputs
    mine.narrow(axis, 0, before - unknown).copy_(theirs.narrow(axis, 0, before - unknown))
    if unknown:
        mine.narrow(axis, now - 1, 1).copy_(theirs.narrow(axis, before - 1, 1))


def layer_of(state: TrainState, name: str) -> nn.Module:
    """Return the layer that a tensor of a state is of."""
    network = state.discriminator if name.startswith(DISCRIMINATOR) else state.generator
    return network.get_submodule(name.partition(".")[2].rpartition(".")[0])
