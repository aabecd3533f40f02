"""Named recipes: settings that are known to work, with the paper they follow and what to expect."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from trainer.config import Config
from trainer.networks.dcgan import DcganSettings
from trainer.settings import Refused


@dataclass(frozen=True)
class Recipe:
    """Settings, and where they come from."""

    config: Config
    paper: str
    expect: str


DCGAN = "Radford, Metz and Chintala 2016, arXiv:1511.06434"

RECIPES = {
    "dcgan-32": Recipe(
        Config(recipe="dcgan-32", batch_size=64, micro_batch_size=16, network=DcganSettings(size=32)),
        DCGAN,
        "recognisable flags after some 100,000 pictures",
    ),
    "dcgan-64": Recipe(
        Config(recipe="dcgan-64", batch_size=128, micro_batch_size=32, network=DcganSettings(size=64)),
        DCGAN,
        "the paper's networks, batch and optimizer; the batch is four micro-batches with statistics of their own",
    ),
    "dcgan-128": Recipe(
        Config(recipe="dcgan-128", batch_size=128, micro_batch_size=32, network=DcganSettings(size=128)),
        DCGAN,
        "one more layer in each network than the paper's",
    ),
}


def recipe(name: str) -> Config:
    """Return a recipe's settings.

    Raises:
        Refused: there is none of this name.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RECIPES)}"
        raise Refused(f"there is no recipe {name!r}; {hint}")
    return RECIPES[name].config
