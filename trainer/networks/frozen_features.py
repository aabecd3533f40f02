"""Frozen networks from pictures to feature maps, for Projected GAN: random VGG, or EfficientNet-Lite0 from a file.

Their weights are buffers: they are a part of the training state, so that a run needs their file only when it begins,
and no optimizer knows them.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.extractors.random_vgg import CONVOLUTIONS, WIDTHS, RandomVgg
from trainer.extractors.weights import random_weights, read_tensors
from trainer.networks.efficientnet import EfficientNetLite0
from trainer.networks.network_settings import NetworkSettings

LEVELS = 4


class RandomVggFeatures(nn.Module):
    """The convolutions of random VGG, with the maps after its last four poolings."""

    channels = WIDTHS[1:]

    def __init__(self) -> None:
        super().__init__()
        convolutions = sum(2 * count + 1 for count in CONVOLUTIONS)
        self.layers = nn.Sequential(*list(RandomVgg().layers)[:convolutions])

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Return the maps of a 4th, 8th, 16th and 32nd of the sides."""
        maps = []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        return maps[-LEVELS:]


def feature_network(settings: NetworkSettings) -> RandomVggFeatures | EfficientNetLite0:
    """Return the network that the settings name, frozen; its weights are not filled in yet."""
    network = EfficientNetLite0() if settings.features_hash else RandomVggFeatures()
    freeze(network)
    return network


def freeze(network: nn.Module) -> None:
    """Make buffers of all parameters, and evaluate from here on."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    network.eval()


@torch.no_grad()
def fill_features(network: nn.Module, settings: NetworkSettings) -> None:
    """Fill in the weights: by a fixed key, so the same on every machine, or from the file.

    Raises:
        Refused: the file is not there, is not the one that the run was made with, or holds other tensors.
    """
    if not settings.features_hash:
        drawn = random_weights(RandomVgg, "random-vgg")
        network.load_state_dict({name: drawn[name] for name in network.state_dict()})
        return
    found = weights_of_file(settings)
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in found or found[name].shape != tensor.shape:
            there = tuple(found[name].shape) if name in found else "missing"
            raise Refused(
                f"network.features_file {settings.features_file} is no EfficientNet-Lite0: {name} is {there} there, "
                f"and should be {tuple(tensor.shape)}; timm's tf_efficientnet_lite0 fits"
            )
        tensor.copy_(found[name])


def weights_of_file(settings: NetworkSettings) -> dict[str, Tensor]:
    """Read the file of weights.

    Raises:
        Refused: it is not there, or is not the one that the run was made with.
    """
    path = settings.features_file
    if path is None or not path.is_file():
        raise Refused(f"network.features_file {path} is no file: it is needed once, when the run begins")
    if file_sha256(path) != settings.features_hash:
        raise Refused(f"network.features_file {path} is another file than the run was made with")
    return read_tensors(path)


@cache
def resize_matrix(
    inputs: int, outputs: int, corners: bool, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "outputs inputs"]:
    """Return bilinear interpolation along an axis as a matrix; `corners`: the outermost places stay where they are.

    As a matrix product its gradient adds up in a fixed order, on GPUs too.
    """
    place = torch.arange(outputs, dtype=torch.float64)
    if corners:
        place = place * ((inputs - 1) / max(outputs - 1, 1))
    else:
        place = ((place + 0.5) * (inputs / outputs) - 0.5).clamp(min=0)
    first = place.floor().clamp(max=inputs - 1).long()
    second = (first + 1).clamp(max=inputs - 1)
    matrix, row = torch.zeros(outputs, inputs, dtype=torch.float64), torch.arange(outputs)
    matrix[row, first] += 1 - (place - first)
    matrix[row, second] += place - first
    return matrix.to(device, dtype)


def resize(x: Float[Tensor, "n c h w"], height: int, width: int, corners: bool) -> Float[Tensor, "n c y x"]:
    """Interpolate pictures or maps, in the precision that they come in."""
    rows = resize_matrix(x.shape[2], height, corners, x.device, x.dtype)
    columns = resize_matrix(x.shape[3], width, corners, x.device, x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return rows @ x @ columns.T
