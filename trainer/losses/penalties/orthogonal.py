"""Orthogonal regularisation of weights (Brock et al. 2019, arXiv:1809.11096, eq. 3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty


class Orthogonal(Penalty):
    """Sum over layers of |W'W off its diagonal|²; the weight is their beta (1e-4).

    W is (out, the rest); as in the authors' code the products are between the filters, and embeddings are left out. It
    is the paper's formula: their code adds half of its gradient.
    """

    def __init__(self, network_name: Literal["g", "d"]) -> None:
        self.network_name = network_name

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        network = d_pass.models.generator if self.network_name == "g" else d_pass.models.discriminator
        return torch.stack([off_diagonal(w) for w in matrix_weights(network)]).sum(), {}


def matrix_weights(network: nn.Module) -> list[Tensor]:
    """Return the weights of a network that have more than one dimension, embeddings aside, as (out, …)."""
    transposed = [p for layer in network.modules() if isinstance(layer, nn.ConvTranspose2d) for p in layer.parameters()]
    inputs_first = set(map(id, transposed))
    return [
        p.transpose(0, 1) if id(p) in inputs_first else p  # ConvTranspose2d has (in, out, …)
        for name, p in network.named_parameters()
        if p.ndim > 1 and "embed" not in name
    ]


def off_diagonal(weight: Tensor) -> Tensor:
    """Return |W W' off its diagonal|²."""
    matrix = weight.flatten(1)
    with torch.autocast(weight.device.type, enabled=False):
        product = matrix @ matrix.t()
        return (product - torch.diag(product.diagonal())).square().sum()
