"""What becomes of a recipe with another batch, or on other numbers of GPUs, by the rule of its paper.

More GPUs share a larger batch, and nothing else follows by itself. The rule is told where a run begins, and applied
where its user asks for it (`--scale-rule paper`). What the run records are the values that come of it: it goes on with
them whatever its number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from shards.images.size import format_size
from trainer.config.batch_rules import BatchRule, Values
from trainer.config.config import Config
from trainer.core.fields import Refused, overlay_settings, setting_leaves

ScaleRule = Literal["none", "paper"]
"""By what a run that begins with another batch than its recipe's sets rates, penalties and moving average."""

GPUS = (1, 8, 32)
"""For so many a recipe says what to set."""
NO_RULE = "its paper has no rule for other batches"


@dataclass(frozen=True)
class Change:
    """A setting that a rule sets otherwise than the recipe."""

    name: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.name} {self.before:.10g} → {self.after:.10g}"


@dataclass(frozen=True)
class Scaling:
    """A run's batch is not its recipe's, and this is what the rule makes of it."""

    difference: str
    """In words."""
    rule: BatchRule | None
    """None: the paper has none."""
    changes: tuple[Change, ...]
    kept: tuple[str, ...]
    """What the rule would set and the user has set otherwise."""

    def apply(self, config: Config) -> Config:
        """Return the settings with the rule's.

        Raises:
            Refused: there is no rule.
        """
        if self.rule is None:
            raise Refused(f"--scale-rule paper: {self.difference}, and {NO_RULE}; leave it out to keep all else")
        return with_values(config, {change.name: change.after for change in self.changes})

    def describe(self, applied: bool) -> str:
        """Say what the rule does, and whether that was done."""
        if self.rule is None:
            return f"{self.difference}; {NO_RULE}: rates, penalties and moving average stay"
        changes = ", ".join(map(str, self.changes)) or "rates, penalties and moving average stay"
        yours = f"; as you have it: {', '.join(self.kept)}" if self.kept else ""
        asked = "" if not self.changes else " (applied)" if applied else " (not applied: --scale-rule paper applies it)"
        return f"{self.difference}; by {self.rule.source}: {changes}{yours}{asked}"


def find_scaling(recipe: Config, rule: BatchRule | None, config: Config) -> Scaling | None:
    """Return what a rule does to a run's settings; None: nothing, for the batch is the recipe's.

    A setting that differs from the recipe's was set by the user, and stays.
    """
    here, base = settings_of(config), settings_of(recipe)
    ours, theirs = (rule.values(recipe, one) if rule else {} for one in (config, recipe))
    # Of the rule only what the batch moves: at its own batch a recipe may differ from it, if only by rounding.
    moved = {name: value for name, value in ours.items() if value != theirs[name]}
    if config.batch_size == recipe.batch_size and not moved:
        return None
    changes = tuple(
        Change(name, base[name], value) for name, value in moved.items() if here[name] == base[name] != value
    )
    kept = tuple(name for name, value in moved.items() if here[name] not in (base[name], value))
    return Scaling(describe_difference(recipe, config), rule, changes, kept)


def describe_difference(recipe: Config, config: Config) -> str:
    """Say in what a run's step differs from its recipe's."""
    sizes = [
        ("a batch of", recipe.batch_size, config.batch_size),
        ("updates of D in a step:", recipe.d_steps, config.d_steps),
        ("pictures of", format_size(recipe.network.shape), format_size(config.network.shape)),
    ]
    return ", ".join(f"{name} {here} in place of the recipe's {base}" for name, base, here in sizes if base != here)


@dataclass(frozen=True)
class Layout:
    """A recipe on a number of GPUs."""

    gpus: int
    config: Config
    grown: bool
    """The paper's batch is too small for so many: this is the one to which `submit` grows it."""
    scaling: Scaling | None

    @property
    def batch(self) -> str:
        """The batch, in words."""
        return f"{self.config.batch_size} = {self.config.micro_batches} × {self.config.micro_batch_size}"

    def options(self, recipe: Config) -> Iterator[str]:
        """Yield what a command line says for it; the rule's settings come of its last word."""
        base = settings_of(recipe)
        for name in ("batch_size", "micro_batch_size", "network.mbstd_group"):
            if (value := settings_of(self.config)[name]) != base[name]:
                yield f"--{name.replace('_', '-')} {value}"
        if self.scaling and self.scaling.changes:
            yield "--scale-rule paper"


def layouts(recipe: Config, rule: BatchRule | None) -> Iterator[Layout]:
    """Yield a recipe's batch and micro-batch, and what its rule makes of them, for each number of GPUs."""
    for gpus in GPUS:
        batch = rule.batch_on(recipe, gpus) if rule else recipe.batch_size
        size = largest_part(batch, gpus, recipe.micro_batch_size)
        grown = size < min(recipe.micro_batch_size, rule.fewest if rule else BatchRule.fewest)
        if grown:
            config = recipe.grown_to(gpus)
        else:
            # As `auto` has it: a group is of one GPU's pictures.
            network = replace(recipe.network, mbstd_group=min(recipe.network.mbstd_group, size))
            config = replace(recipe, batch_size=batch, micro_batch_size=size, network=network)
        scaling = find_scaling(recipe, rule, config)
        yield Layout(gpus, scaling.apply(config) if scaling and rule else config, grown, scaling)


def largest_part(batch: int, gpus: int, most: int) -> int:
    """Return the largest micro-batch, of `most` pictures at most, of which a batch has one a GPU; 0: there is none."""
    return next((size for size in range(min(most, batch // gpus), 0, -1) if batch % size == 0), 0)


def settings_of(config: Config) -> dict[str, Any]:
    """Return all settings by their dotted names."""
    return {name: value for name, _, value in setting_leaves(config)}


def with_values(config: Config, values: Values) -> Config:
    """Return the settings with some replaced, by their dotted names."""
    for name, value in values.items():
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        config = overlay_settings(config, nested, "the rule")
    return config
