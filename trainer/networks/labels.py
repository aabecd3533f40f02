"""What networks are told of a picture: its labels, each a few numbers, as one vector.

A class is one-hot, with one more entry that stands for an unknown class. A number is in units of its spread over the
training set, from its mean there; a vector is as it is. Both have one more entry, which is 1 where they are unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Num
from torch import Tensor

from trainer.core.fields import Refused

KIND = re.compile(r"(\d+) classes|mean (\S+) spread (\S+)|(\d+) values")


@dataclass(frozen=True)
class LabelKind:
    """What networks must know of one label."""

    classes: int = 0
    """How many there are; 0: it is no class."""
    length: int = 1
    """How many numbers it is."""
    scaled: tuple[float, float] | None = None
    """Of a number: mean and spread; None: it is told as it is."""

    @property
    def dim(self) -> int:
        """How many entries it has in the vector."""
        return (self.classes or self.length) + 1

    def encode(self, values: Num[Tensor, "n length"]) -> Float[Tensor, "n dim"]:
        """Return its part of the vector."""
        if self.classes:
            # The remainder of -1 is `classes`; compared here, as F.one_hot has more to do.
            entries = torch.arange(self.classes + 1, device=values.device)
            return (values.remainder(self.classes + 1) == entries).float()
        unknown = values.isnan().any(1, keepdim=True)
        if self.scaled:
            # In the type of the labels, float64: a year and its mean differ by little of themselves.
            values = (values - self.scaled[0]) / self.scaled[1]
        return torch.cat([values.masked_fill(unknown, 0.0), unknown.to(values.dtype)], 1).float()


@dataclass(frozen=True)
class LabelLayout:
    """The labels that a pair of networks is told, in order."""

    kinds: tuple[LabelKind, ...]

    @property
    def dim(self) -> int:
        """Entries of the vector."""
        return sum(kind.dim for kind in self.kinds)

    @property
    def values(self) -> int:
        """How many numbers the labels of a picture are."""
        return sum(kind.length for kind in self.kinds)

    @property
    def classes(self) -> list[int]:
        """How many classes each label that is a class has."""
        return [kind.classes for kind in self.kinds if kind.classes]

    @property
    def guessed(self) -> int:
        """Logits of a discriminator that guesses all classes."""
        return sum(self.classes)

    def split(self, label: Num[Tensor, "n ..."]) -> list[Num[Tensor, "n length"]]:
        """Return the numbers of each label; labels (n,) are of one class."""
        numbers = label.reshape(-1, self.values)
        return list(numbers.split([kind.length for kind in self.kinds], 1)) if len(self.kinds) > 1 else [numbers]

    def __call__(self, label: Num[Tensor, "n ..."]) -> Float[Tensor, "n dim"]:
        """Return the vectors of labels; such vectors, (n, dim), are returned as they are, also between classes."""
        if label.dim() == 2 and label.shape[1] == self.dim:  # labels are always fewer numbers than that
            return label.float()
        parts = [kind.encode(values) for kind, values in zip(self.kinds, self.split(label), strict=True)]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def describe_kind(kind: LabelKind) -> str:
    """Return a kind in words, as settings store it."""
    if kind.classes:
        return f"{kind.classes} classes"
    return f"{kind.length} values" if kind.scaled is None else f"mean {kind.scaled[0]} spread {kind.scaled[1]}"


@lru_cache
def parse_kinds(text: str) -> LabelLayout:
    """Read what `describe_kinds` wrote.

    Raises:
        Refused: it wrote something else.
    """
    kinds = []
    for part in text.split(", "):
        if not (found := KIND.fullmatch(part)):
            raise Refused(f"network.label_kinds: {part!r} is no kind of label")
        classes, mean, spread, length = found.groups()
        scaled = (float(mean), float(spread)) if mean else None
        kinds.append(LabelKind(int(classes or 0), int(length or 1), scaled))
    return LabelLayout(tuple(kinds))
