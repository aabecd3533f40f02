"""From class to class: the way between the means of two classes' codes, or between what a network is told of them.

In w the classes lie in different places, and the difference of their means leads from one to the other, as attribute
vectors do (Larsen et al. 2016, arXiv:1512.09300, §4.2). A z has no class: there the label's vector moves, of which
gains, biases and embeddings are linear functions, so that these move in straight lines too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from shards.dataset.labels import Labels
from trainer.core.fields import Refused
from trainer.networks.labels import LabelLayout
from trainer.sampling.sampler import LatentCode, Sampler


@dataclass(frozen=True)
class ClassChange:
    """Moves a picture of one class towards another: by strength 1 all the way."""

    name: str
    start: Labels
    """Labels of pictures of the first class, (m, values), in turn."""
    labels: LabelLayout
    of_code: Float[Tensor, " w"] | None
    """The step of w; None: the network has none, and the label moves."""
    of_label: Float[Tensor, " dim"]
    """The step of the label's vector."""

    def __call__(self, one: LatentCode, strength: float) -> LatentCode:
        """Move one picture."""
        code, latent = one
        if self.of_code is not None:
            return code + strength * self.of_code.to(code), latent
        return code, replace(latent, label=self.labels(latent.label) + strength * self.of_label)

    def step(self) -> Float[Tensor, "1 w"]:
        """Return the direction of the code, to be saved.

        Raises:
            Refused: it is the label that moves.
        """
        if self.of_code is None:
            raise Refused(
                "--save: in this network the label moves from class to class, and no code: there is no direction"
            )
        return self.of_code[None]


def class_change(sampler: Sampler, name: str, start: Labels, end: Labels) -> ClassChange:
    """Return the change from pictures of one class to those of another, all other labels alike.

    Args:
        sampler: of the generator, which is told classes.
        name: of the change.
        start: labels of pictures of the first class, (m, values).
        end: labels of pictures of the second one, of which the class counts.
    """
    layout, place = sampler.settings.labels, first_class(sampler.settings.labels)
    moved = start.copy()
    moved[:, place] = end[0, place]
    told = [layout(torch.from_numpy(rows[:1])) for rows in (start, moved)]
    of_code = None
    if sampler.generator.interpolates_linearly:
        # Of the same noise, so that only the class makes the difference.
        means = [sampler.many_codes(np.ascontiguousarray(rows)).mean(0)[0] for rows in (start, moved)]
        of_code = (means[1] - means[0]).cpu()
    return ClassChange(name, start, layout, of_code, (told[1] - told[0])[0])


def first_class(layout: LabelLayout) -> int:
    """Return the place of the first label that has classes in a row of labels."""
    place = 0
    for kind in layout.kinds:
        if kind.classes:
            return place
        place += kind.length
    raise Refused("the generator of this run is told no classes")
