"""The penalties: one file each idea, one line here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, make_dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar

import tyro

from command_line.plugins import Registry
from trainer.core.registry import choose_from, is_kind
from trainer.core.schedules import half_cosine
from trainer.losses.penalties.base import Build, Penalty, Weighted
from trainer.losses.penalties.classes import DiscriminatorClasses, GeneratorClasses, Style, StyleAmbiguity
from trainer.losses.penalties.consistency import Consistency
from trainer.losses.penalties.cutmix import CutMix
from trainer.losses.penalties.feature_matching import FeatureMatching
from trainer.losses.penalties.latent_consistency import DiscriminatorLatentConsistency, GeneratorLatentConsistency
from trainer.losses.penalties.lecam import LeCam
from trainer.losses.penalties.orthogonal import Orthogonal
from trainer.losses.penalties.path_length import PathLength
from trainer.losses.penalties.r1_r2 import R1, R2
from trainer.losses.penalties.reconstruction import Reconstruction
from trainer.losses.penalties.wgan_gp import Dragan, WganGp

T = TypeVar("T")


def penalty(build: Build, later: bool = False, plugin: bool = False) -> Any:
    """Declare a penalty: a group of settings that knows what it sets.

    Args:
        build: makes it.
        later: it was added when there were runs already, whose settings do not name it (fields.later_identity).
        plugin: another package adds it: settings name it only where it is used.
    """
    known = {"kind": "group", "build": build, "later": later, "plugin": plugin}
    return field(default_factory=Weighted, metadata=known)


def with_plugins(ours: type[T]) -> type[T]:
    """Return the settings of all penalties: ours, and those that other packages add."""
    taken = tuple(f.name for f in fields(ours))  # type: ignore[arg-type]  # a dataclass
    wanted = "a subclass of trainer.losses.penalties.base.Penalty"
    # Names of settings are Python's, as in --penalties.my_penalty.weight.
    plugins: Registry[type[Penalty]] = Registry("penalties", {}, wanted, is_kind(Penalty), taken, str.isidentifier)
    added: list[tuple[str, Any, Any]] = []
    for name, plugin in plugins.plugins.items():
        kind = Annotated[Weighted, tyro.conf.arg(help=f"Of the package {plugin}.")]
        added.append((name, kind, penalty(partial(build_plugin, plugins, name), later=True, plugin=True)))
    names = {"__doc__": ours.__doc__, "__module__": ours.__module__, "plugins": plugins}
    return make_dataclass(ours.__name__, added, bases=(ours,), frozen=True, namespace=names)


def build_plugin(plugins: Registry[type[Penalty]], name: str) -> Penalty:
    """Make a penalty that another package adds.

    Raises:
        Refused: it cannot be loaded.
    """
    return choose_from(plugins, name, "penalty")()


@with_plugins
@dataclass(frozen=True)
class Penalties:
    """What is added to the losses; a weight of 0 leaves a penalty out."""

    plugins: ClassVar[Registry[type[Penalty]]]

    r1: Weighted = penalty(R1)
    """D's gradients on reals (Mescheder et al. 2018)."""
    r2: Weighted = penalty(R2)
    """D's gradients on fakes (Mescheder et al. 2018)."""
    wgan_gp: Weighted = penalty(WganGp)
    """D's gradients between reals and fakes have length one (Gulrajani et al. 2017)."""
    dragan: Weighted = penalty(Dragan)
    """D's gradients around reals have length one (Kodali et al. 2017)."""
    lecam: Weighted = penalty(LeCam)
    """D's logits stay near those of the other side (Tseng et al. 2021)."""
    bcr: Weighted = penalty(Consistency)
    """D does not mind mirroring and shifts (Zhao et al. 2021)."""
    zcr_d: Weighted = penalty(DiscriminatorLatentConsistency, later=True)
    """D judges pictures of neighbouring z alike (Zhao et al. 2021)."""
    zcr_g: Weighted = penalty(GeneratorLatentConsistency, later=True)
    """G makes pictures of neighbouring z different (Zhao et al. 2021)."""
    orthogonal_g: Weighted = penalty(partial(Orthogonal, "g"))
    """G's filters are orthogonal (Brock et al. 2019)."""
    orthogonal_d: Weighted = penalty(partial(Orthogonal, "d"))
    """D's filters are orthogonal (Brock et al. 2019)."""
    path_length: Weighted = penalty(PathLength)
    """Steps in G's code move pictures by a constant length (Karras et al. 2020a)."""
    classes_d: Weighted = penalty(DiscriminatorClasses)
    """D guesses the class of reals and fakes (AC-GAN, Odena et al. 2017)."""
    classes_g: Weighted = penalty(GeneratorClasses)
    """G generates images that D finds to be of their class (AC-GAN)."""
    style: Weighted = penalty(Style)
    """D guesses the class of reals (CAN, Elgammal et al. 2017)."""
    ambiguity: Weighted = penalty(StyleAmbiguity)
    """G generates images of no class (CAN)."""
    feature_matching: Weighted = penalty(FeatureMatching, later=True)
    """Fakes have the mean features of reals, of D (Salimans et al. 2016)."""
    reconstruction: Weighted = penalty(Reconstruction)
    """D's features suffice to rebuild reals (FastGAN, Liu et al. 2021)."""
    cutmix: Weighted = penalty(CutMix, later=True)
    """D tells which pixels of a mixed picture are real (U-Net GAN, Schönfeld et al. 2020)."""

    def active(self) -> Iterator[Active]:
        """Yield those that count, in the order above."""
        for f in fields(self):
            weighted: Weighted = getattr(self, f.name)
            if weighted.weight or weighted.final:  # a weight of 0 may rise
                yield Active(f.name, f.metadata["build"](), weighted)


@dataclass(frozen=True)
class Active:
    """A penalty that counts, under its name."""

    name: str
    penalty: Penalty
    weighted: Weighted

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of what is measured."""
        return self.name, *self.penalty.measures

    def due(self, update: int) -> bool:
        """Tell whether it is computed in its network's update of this number."""
        return update % self.weighted.every == 0

    def factor(self, images_seen: int, decay_images: int) -> float:
        """Return the factor of its value: the weight at this moment, times the updates that it stands for."""
        weighted = self.weighted
        return weighted.every * half_cosine(weighted.weight, weighted.final, images_seen, decay_images)

    def initial_scalars(self) -> dict[str, float]:
        """Return the scalars that training begins with: what was last measured, and what the penalty remembers."""
        return dict.fromkeys(self.scalars, 0.0) | dict(self.penalty.running_scalars)
