"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957) whose vectors do not count forward passes.

torch's own advances its vectors at every training pass, so that the bits would depend on how many micro-batches a
process has. Here they are frozen while micro-batches run, and advance once per optimizer step, from the weights alone.
"""

from __future__ import annotations

from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

from trainer.core.randomness import philox

EPS = 1e-12  # torch's own, here and below
FIRST_ITERATIONS = 15


class Normalise(torch.autograd.Function):
    """W / sigma, and its gradient (G - <G, W / sigma> u v') / sigma (Miyato et al. 2018, eq. 12), by few operations."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, sigma: Tensor, norm: SpectralNorm) -> Tensor:
        """Divide."""
        ctx.norm = norm
        normalised = weight / sigma
        # Autograd sees to it that the vectors have not advanced when it goes back.
        ctx.save_for_backward(weight, sigma, normalised, norm.u, norm.v)
        return normalised

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient with respect to the weight; it goes through W in sigma, not through u and v."""
        weight, sigma, normalised, u, v = ctx.saved_tensors
        norm: SpectralNorm = ctx.norm
        if torch.is_grad_enabled():  # to be differentiated again: sigma too as a function of the weight
            sigma = torch.dot(u, torch.mv(norm.matrix(weight), v))
            normalised = weight / sigma
        order = sorted(range(weight.ndim), key=weight.stride, reverse=True)
        # As they lie in memory, channels_last weights need not be copied.
        along = torch.dot(grad.permute(order).reshape(-1), normalised.permute(order).reshape(-1))
        # u v' in the weight's shape, as a product of two views.
        u = (along * u).view([-1 if dim == norm.out_dim else 1 for dim in range(weight.ndim)])
        return torch.addcmul(grad, u, norm.as_columns(v, weight).unsqueeze(norm.out_dim), value=-1) / sigma, None, None


class SpectralNorm(nn.Module):
    """W / sigma(W), with sigma = u' W v from power iteration: a parametrization of a layer's weight.

    As u is W v / |W v|, sigma is |W v|. It is known from the last advance until weight or vectors are written.

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
        self.given: Tensor | None = None  # what it makes of the weight, if that is known (checkpointing.py)
        self.known: tuple[Tensor, ReferenceType[Tensor], tuple[object, ...]] | None = None

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the weight as (out, the rest)."""
        return weight.movedim(self.out_dim, 0).flatten(1)

    def as_columns(self, v: Tensor, weight: Tensor) -> Tensor:
        """Return v in the shape of the weight's dimensions but the one of outputs."""
        return v.view([size for dim, size in enumerate(weight.shape) if dim != self.out_dim])

    def in_memory(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the matrix with columns in their order in memory, and a view of v with their dimensions."""
        rest = sorted((dim for dim in range(weight.ndim) if dim != self.out_dim), key=weight.stride, reverse=True)
        v = self.as_columns(self.v, weight).unsqueeze(self.out_dim)
        return weight.permute(self.out_dim, *rest).flatten(1), v.permute(self.out_dim, *rest)[0]

    def keep(self, sigma: Tensor, weight: Tensor) -> None:
        """Remember sigma."""
        self.known = sigma, ref(weight), self.versions(weight)

    def versions(self, weight: Tensor) -> tuple[object, ...]:
        """Return what changes when what sigma depends on is written, moved, converted or laid out anew."""
        written = (tensor._version for tensor in (weight, self.u, self.v))
        return *written, weight.device, weight.dtype, weight.stride()

    @torch.no_grad()
    def sigma(self, weight: Tensor) -> Tensor:
        """Return sigma, measured anew unless it is known."""
        if self.known and not torch.compiler.is_compiling():  # a compiled graph would be one of these versions only
            sigma, measured, versions = self.known
            if measured() is weight and versions == self.versions(weight):
                return sigma
        matrix, v = self.in_memory(weight)
        return lengths([torch.mv(matrix, v.flatten())])[0]

    def forward(self, weight: Tensor) -> Tensor:
        """Divide by the largest singular value."""
        if self.given is not None:
            return self.given
        with torch.autocast(weight.device.type, enabled=False):
            normalised: Tensor = Normalise.apply(weight, self.sigma(weight), self)  # type: ignore[no-untyped-call]
            return normalised


def normalised_weights(network: nn.Module) -> list[tuple[SpectralNorm, Tensor]]:
    """Return each spectral norm of a network with the weight that it normalises."""
    found = []
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], SpectralNorm):
            found.append((module[0], module.original))
    return found


def add_spectral_norm(network: nn.Module, without: tuple[str, ...] = ()) -> None:
    """Normalise the weight of every linear and convolutional layer of a network, but of those with these endings.

    Layers whose weights are buffers are frozen, and stay as they are.
    """
    for name, layer in list(network.named_modules()):
        if not isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) or name.endswith(without):
            continue
        if isinstance(layer.weight, nn.Parameter):
            out_dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            # unsafe: torch would call the parametrization once to check it, and the vectors are not drawn yet.
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight, out_dim), unsafe=True)


def start_spectral_norm(network: nn.Module, seed: int, name: str, iterations: int = FIRST_ITERATIONS) -> None:
    """Draw the vectors, and iterate until they fit the weights."""
    for k, (norm, _) in enumerate(normalised_weights(network)):
        u = torch.from_numpy(philox(seed, "spectral norm", name, k).standard_normal(len(norm.u), dtype="float32"))
        norm.u.copy_(normalize(u.to(norm.u), dim=0))
    # Enough iterations that the first forward passes do not depend on the draw.
    advance_spectral_norm(network, iterations)


def advance_spectral_norm(network: nn.Module, iterations: int = 1) -> None:
    """Advance every vector, on the weights as they are now; call it once per optimizer step, on every process."""
    found = normalised_weights(network)
    if found and iterations:
        advance(found, iterations)


@torch.no_grad()
def advance(found: list[tuple[SpectralNorm, Tensor]], iterations: int) -> None:
    """Advance the vectors of these weights, all layers together."""
    us = [norm.u for norm, _ in found]
    matrices, views_of_v = zip(*(norm.in_memory(weight) for norm, weight in found), strict=True)
    # v <- W' u / |W' u|, u <- W v / |W v| (algorithm 1).
    for _ in range(iterations):
        vs, _ = directions([torch.mv(matrix.t(), u) for matrix, u in zip(matrices, us, strict=True)])
        us, sigmas = directions([torch.mv(matrix, v) for matrix, v in zip(matrices, vs, strict=True)])
    vs = [v.view(view.shape) for v, view in zip(vs, views_of_v, strict=True)]
    torch._foreach_copy_([*(norm.u for norm, _ in found), *views_of_v], us + vs)
    for (norm, weight), sigma in zip(found, sigmas, strict=True):
        norm.keep(sigma, weight)


def lengths(vectors: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the length of each vector, but never 0."""
    found = torch._foreach_norm(vectors)
    torch._foreach_clamp_min_(found, EPS)
    return found


def directions(vectors: list[Tensor]) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Return each vector over its length, and the lengths."""
    found = lengths(vectors)
    return list(torch._foreach_div(vectors, found)), found
