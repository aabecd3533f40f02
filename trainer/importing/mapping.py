"""From the tensors of another program to those of ours, each taken by its name and accounted for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainer.networks.network_settings import NetworkSettings

Named = dict[str, Tensor]


class DoesNotFit(Exception):
    """A checkpoint is of a network that ours cannot be; the message says where."""


class Source:
    """The tensors of a network of another program, and which of them were taken for what.

    Args:
        tensors: by their names.
        passed_over: a pattern of names that hold nothing that ours needs.
    """

    def __init__(self, tensors: Mapping[str, Tensor], passed_over: str) -> None:
        self.tensors, self.passed_over = tensors, re.compile(passed_over)
        self.taken: dict[str, str] = {}

    def __call__(self, name: str, ours: str) -> Tensor:
        """Take a tensor, in float32.

        Raises:
            DoesNotFit: it is not there.
        """
        if name not in self.tensors:
            raise DoesNotFit(f"it has no {name}, which {ours} is made of")
        self.taken[name] = ours
        return self.tensors[name].detach().float()

    def has(self, name: str) -> bool:
        """Tell whether there is a tensor of a name."""
        return name in self.tensors

    def size(self, name: str, axis: int = 0) -> int:
        """Return how large a tensor is along an axis.

        Raises:
            DoesNotFit: there is no such tensor, or axis.
        """
        if name not in self.tensors or self.tensors[name].dim() <= axis:
            raise DoesNotFit(f"it has no {name} of {axis + 1} dimensions, by which networks of this program are known")
        return int(self.tensors[name].shape[axis])

    def left(self) -> list[str]:
        """Return the names that nothing was made of, and that cannot be passed over."""
        return [name for name in self.tensors if name not in self.taken and not self.passed_over.search(name)]


@dataclass(frozen=True)
class Networks:
    """What a checkpoint holds."""

    generator: Mapping[str, Tensor]
    discriminator: Mapping[str, Tensor] | None = None
    averaged: bool = True
    images_seen: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What tensors do not tell, such as the group of the minibatch standard deviation."""


@dataclass(frozen=True)
class Program:
    """How the checkpoints of one program become ours.

    Args:
        summary: whose program it is.
        passed_over: a pattern of the names of tensors that ours does without.
        open: finds the networks in what a file holds; whether the average is wanted; and what a second file holds.
        settings: architecture and settings of both networks, from the shapes of the tensors.
        generator: our generator's tensors; the mean style among them, where there is one.
        discriminator: our discriminator's tensors.
        d_architecture: of the discriminator, where it is not the generator's.
    """

    summary: str
    passed_over: str
    open: Callable[[Any, bool, Any], Networks]
    settings: Callable[[Source, Source | None, Mapping[str, Any]], tuple[str, NetworkSettings]]
    generator: Callable[[Source, NetworkSettings], Named]
    discriminator: Callable[[Source, NetworkSettings], Named]
    d_architecture: str | None = None


def copied(source: Source, pairs: Mapping[str, str]) -> Named:
    """Return tensors that are the same on both sides: ours by name, and theirs."""
    return {ours: source(theirs, ours) for ours, theirs in pairs.items()}


def with_unknown(weight: Tensor, axis: int = 1, equalized: bool = False) -> Tensor:
    """Return what a network knows of classes with one more entry, of zeros, for an unknown class.

    Args:
        weight: one entry for each class along an axis.
        axis: of the classes.
        equalized: the layer divides its weight by the root of its inputs, of which there is one more now.
    """
    classes = weight.shape[axis]
    made = torch.cat([weight, torch.zeros_like(weight.narrow(axis, 0, 1))], axis)
    return made * math.sqrt((classes + 1) / classes) if equalized else made


def told_classes(classes: int) -> dict[str, Any]:
    """Return the settings of networks that are told so many classes; 0: none."""
    return {"classes": classes, "g_conditional": classes > 0, "d_head": "projection" if classes else "plain"}


def base_width(channels: Mapping[int, int], size: int) -> tuple[int, int]:
    """Return (width, max_channels) of networks with width * size / side channels at each side, but never more.

    Args:
        channels: by the side of the feature maps.
        size: side of the pictures.

    Raises:
        DoesNotFit: they follow no such rule.
    """
    most = max(channels.values())
    candidates = {n * side // size for side, n in channels.items() if n < most or side == size}
    for width in sorted(candidates):
        if all(min(width * size // side, most) == n for side, n in channels.items()):
            return width, most
    raise DoesNotFit(f"its channels {dict(channels)} are not twice as many at half the side, up to a largest number")


def power_of_two(sides: Sequence[int]) -> int:
    """Return the largest of some sides, which double from 4.

    Raises:
        DoesNotFit: they do not.
    """
    if not sides or sorted(sides) != [4 << k for k in range(len(sides))]:
        raise DoesNotFit("it has no blocks at sides of 4, 8, 16 and so on")
    return max(sides)
