"""Directions of a generator's code in which its pictures change most, from its weights alone.

SeFa (Shen and Zhou 2021, arXiv:2007.06600): where a layer takes the code by y = A code + b, a step along the unit
vector n changes y by A n, whatever the code. Its length is largest for the eigenvectors of A' A with the largest
eigenvalues (eq. 4 to 7). Of several layers, A has the rows of all of them. The authors' code scales each row to length
one, which their paper does not; here the rows stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.core.fields import Refused
from trainer.networks.base import Generator

Layers = Sequence[int] | None
"""Layers that take the code, by their position in Generator.code_layers; None: all of them."""
THIRDS = ("coarse", "middle", "fine")


def principal_directions(weight: Float[Tensor, "outputs code"], num: int) -> Float[Tensor, "num code"]:
    """Return the unit eigenvectors of weight' weight with the largest eigenvalues, in falling order of these.

    The entry that is furthest from zero is positive, so the sign does not depend on how they were computed.
    """
    weight = weight.detach().double().cpu()
    vectors: Tensor = torch.linalg.eigh(weight.T @ weight).eigenvectors.T.flip(0)[:num]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * largest.sign()).float()


def find_directions(generator: Generator, num: int, layers: Layers = None) -> Float[Tensor, "num code"]:
    """Return a generator's directions: unit vectors of z or of one layer's w on the CPU, the strongest first.

    Args:
        generator: its weights are read as they are.
        num: how many, from 1 to the dimensions of the code.
        layers: that are to change; None: all.

    Raises:
        Refused: it has no such layers, or not so many directions.
    """
    found = generator.code_layers()
    if not found:
        raise Refused("this generator names no layer that takes its code: it has no directions in closed form")
    if layers is not None and not (layers and all(0 <= k < len(found) for k in layers)):
        raise Refused(f"layers that take the code are numbered from 0 to {len(found) - 1}, but these are {[*layers]}")
    chosen = torch.cat([found[k] for k in (range(len(found)) if layers is None else layers)])
    if not 1 <= num <= chosen.shape[1]:
        raise Refused(f"this generator's code has {chosen.shape[1]} directions: ask for 1 to all of them, not {num}")
    return principal_directions(chosen, num)


def move(
    code: Float[Tensor, "n ..."], direction: Float[Tensor, " code"], strength: float, layers: Layers = None
) -> Float[Tensor, "n ..."]:
    """Return codes moved by `strength` times a direction, on the codes' device.

    Args:
        code: (n, z), or (n, layers, w), of which every layer moves, or those of `layers` only.
        direction: (z,) or (w,), usually of length 1.
        strength: in units of the code: a z has deviation 1 along any direction; of w see `deviations`.
        layers: of w.
    """
    step = strength * direction.to(code)
    if layers is None or code.dim() == 2:
        return code + step
    moved = code.clone()
    moved[:, list(layers)] += step
    return moved


def mix(
    generator: Generator, code: Float[Tensor, "n ..."], other: Float[Tensor, "n ..."], layers: Sequence[int]
) -> Float[Tensor, "n ..."]:
    """Return codes with what these layers take exchanged for that of other codes (Karras et al. 2019, §3.1)."""
    mixed = code.clone()  # also of codes whose layers share memory
    generator.by_layer(mixed)[:, list(layers)] = generator.by_layer(other)[:, list(layers)]
    return mixed


def parse_layers(text: str, count: int) -> list[int]:
    """Read coarse, middle, fine (a third of the layers each), or numbers such as 0-2,5.

    Raises:
        Refused: it is none of them, or there are no such layers.
    """
    if text in THIRDS:
        if count < len(THIRDS):
            raise Refused(f"--layers {text}: this generator's code has {count} layers: name them by their numbers")
        k = THIRDS.index(text)
        bounds = [-(-count * part // len(THIRDS)) for part in (k, k + 1)]
        return list(range(*bounds))
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise Refused(f"--layers must be coarse, middle, fine or numbers such as 0-2,5, but is {text!r}")
        if not int(first) <= int(last or first) < count:
            raise Refused(f"--layers {text}: layers of this generator's code are numbered from 0 to {count - 1}")
        layers += range(int(first), int(last or first) + 1)
    return sorted({*layers})


def deviations(codes: Float[Tensor, "n ..."], directions: Float[Tensor, "num code"]) -> Float[Tensor, " num"]:
    """Return the standard deviation of codes along each direction, on the CPU; of w the first layer's."""
    flat = codes[:, 0] if codes.dim() == 3 else codes
    return (flat.float().cpu() @ directions.T).std(0)
