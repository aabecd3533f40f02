"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957) whose vectors do not count forward passes.

torch's own advances its vectors at every training pass, so that the bits would depend on how many micro-batches a
process has. Here they are frozen while micro-batches run, and advance once per optimizer step, from the weights alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

from trainer.core.randomness import philox

EPS = 1e-12  # torch's own, here and below
FIRST_ITERATIONS = 15


class SpectralNorm(nn.Module):
    """W / sigma(W), with sigma = u' W v from power iteration: a parametrization of a layer's weight.

    Args:
        weight: (out, in, …), or (in, out, …) for a transposed convolution.
        out_dim: the dimension that counts outputs.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, out_dim: int) -> None:
        super().__init__()
        self.out_dim = out_dim
        rows, columns = self.matrix(weight).shape
        # Buffers, so that checkpoints hold them; `start_spectral_norm` draws them from a key.
        self.register_buffer("u", torch.full((rows,), rows**-0.5, device=weight.device))
        self.register_buffer("v", torch.full((columns,), columns**-0.5, device=weight.device))

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the weight as (out, the rest)."""
        return weight.movedim(self.out_dim, 0).flatten(1)

    def forward(self, weight: Tensor) -> Tensor:
        """Divide by the largest singular value; the gradient passes through W in it, not through u and v."""
        with torch.autocast(weight.device.type, enabled=False):
            # Copies: autograd keeps them, and the vectors advance in place.
            sigma = torch.dot(self.u.clone(), torch.mv(self.matrix(weight), self.v.clone()))
            return weight / sigma

    @torch.no_grad()
    def advance(self, weight: Tensor, iterations: int) -> None:
        """Iterate on the weight as it is now."""
        matrix = self.matrix(weight)
        # v <- W' u / |W' u|, u <- W v / |W v| (algorithm 1).
        for _ in range(iterations):
            normalize(torch.mv(matrix.t(), self.u), dim=0, eps=EPS, out=self.v)
            normalize(torch.mv(matrix, self.v), dim=0, eps=EPS, out=self.u)


def normalised_weights(network: nn.Module) -> list[tuple[SpectralNorm, Tensor]]:
    """Return each spectral norm of a network with the weight that it normalises."""
    found = []
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], SpectralNorm):
            found.append((module[0], module.original))
    return found


def add_spectral_norm(network: nn.Module, without: tuple[str, ...] = ()) -> None:
    """Normalise the weight of every linear and convolutional layer of a network, but of those with these endings."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and not name.endswith(without):
            out_dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            # unsafe: torch would call the parametrization once to check it, and the vectors are not drawn yet.
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight, out_dim), unsafe=True)


def start_spectral_norm(network: nn.Module, seed: int, name: str, iterations: int = FIRST_ITERATIONS) -> None:
    """Draw the vectors, and iterate until they fit the weights."""
    for k, (norm, weight) in enumerate(normalised_weights(network)):
        u = torch.from_numpy(philox(seed, "spectral norm", name, k).standard_normal(len(norm.u), dtype="float32"))
        # Enough iterations that the first forward passes do not depend on the draw.
        norm.u.copy_(normalize(u.to(norm.u), dim=0))
        norm.advance(weight, iterations)


def advance_spectral_norm(network: nn.Module, iterations: int = 1) -> None:
    """Advance every vector; call it once per optimizer step, on every process."""
    for norm, weight in normalised_weights(network):
        norm.advance(weight, iterations)
