"""Every entry of every registry as a run that is small enough to test: a new entry is tested without a new test."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields, replace

from trainer.augment import AUGMENTATIONS
from trainer.config.config import Config
from trainer.config.recipes import RECIPES
from trainer.core.fields import Refused
from trainer.losses.objectives import OBJECTIVES
from trainer.losses.penalties import Penalties
from trainer.losses.penalties.base import Weighted
from trainer.networks import DISCRIMINATORS, GENERATORS

CLASSES = 5  # of the bundled pictures


def small(config: Config) -> Config:
    """Return settings of the same parts at 32 pixels, of little width, with three micro-batches and short schedules."""
    network = replace(
        config.network,
        size=32,
        z_dim=32,
        g_channels=16,
        d_channels=16,
        max_channels=32,
        mapping_layers=2,
        features_side=128,
        mbstd_group=min(config.network.mbstd_group, 4),
        classes=CLASSES if config.network.uses_classes else 0,
    )
    batch = 12
    if config.generator.startswith("stylegan3"):  # of 15 layers with filters, which float64 is slow at
        network = replace(network, g_channels=2, max_channels=4)
    if config.generator == "biggan":  # at 32 pixels it has four times the width
        network = replace(network, g_channels=8, d_channels=8)
    if "biggan-deep" in (config.generator, config.discriminator) or config.discriminator in ("unet", "msg-gan"):
        network = replace(network, g_channels=4, d_channels=4)  # at 32 pixels they have several times the width
    penalties = config.penalties
    for f in fields(penalties):
        weighted: Weighted = getattr(penalties, f.name)
        if weighted.every > 2:
            penalties = replace(penalties, **{f.name: replace(weighted, every=2)})
    augment = config.augment
    if augment.uses_p:
        augment = replace(augment, p=augment.p or 0.4, speed_images=200, interval=min(augment.interval, 2))
    if augment.blur_sigma:
        augment = replace(augment, blur_sigma=2.0, blur_images=60)
    optimizer = replace(config.optimizer, decay_images=min(config.optimizer.decay_images, 200))
    return replace(
        config,
        recipe="custom",
        batch_size=batch,
        micro_batch_size=batch // 3,
        d_steps=min(config.d_steps, 2),
        mixed_precision="bf16" if config.mixed_precision == "bf16" else "no",
        network=network,
        penalties=penalties,
        augment=augment,
        optimizer=optimizer,
        top_k_images=100,
    )


def parts(config: Config) -> set[tuple[str, str]]:
    """Return the entries of registries that a run has, each with its registry."""
    weighted: dict[str, Weighted] = {f.name: getattr(config.penalties, f.name) for f in fields(Penalties)}
    named = {"generator": config.generator, "discriminator": config.discriminator, "objective": config.objective}
    found = {*named.items(), ("augment", config.augment.kind)}
    return found | {("penalty", name) for name, one in weighted.items() if one.weight}


def exchanged() -> dict[tuple[str, str], Config]:
    """Return for every entry of every registry a DCGAN with it; each is named as `parts` names it."""
    base = Config()
    found = {("generator", name): replace(base, generator=name) for name in GENERATORS}
    found |= {("discriminator", name): replace(base, discriminator=name) for name in DISCRIMINATORS}
    found |= {("objective", name): replace(base, objective=name) for name in OBJECTIVES}
    found |= {("augment", name): replace(base, augment=replace(base.augment, kind=name)) for name in AUGMENTATIONS}
    for f in fields(Penalties):
        penalties = replace(base.penalties, **{f.name: Weighted(0.1, every=2)})
        found["penalty", f.name] = replace(base, penalties=penalties)
    return found


def candidates() -> dict[str, Config]:
    """Return a run of every recipe, of every entry that no recipe has, and of what has been wrong before."""
    found = {f"recipe {name}": recipe.config for name, recipe in RECIPES.items()}
    in_recipes = set[tuple[str, str]]().union(*map(parts, found.values()))
    found |= {" ".join(part): config for part, config in exchanged().items() if part not in in_recipes}
    base = Config()
    found["ada, the whole pipe"] = replace(base, augment=replace(base.augment, kind="ada", pipe="bgcfno"))
    found["top-k"] = replace(base, top_k=0.5)
    # Where the caches of cast and of normalised weights could make a pass depend on whose update it is in.
    paths = Penalties(path_length=Weighted(0.1, every=2))
    found["bf16 and path length"] = replace(base, mixed_precision="bf16", penalties=paths)
    normalised = replace(base.network, g_spectral_norm=True, d_spectral_norm=True)
    found["normalised and path length"] = replace(base, generator="sngan", network=normalised, penalties=paths)
    return found


def fit(config: Config) -> Config:
    """Return the settings with what a part of them wants of the others."""
    for change in (
        {},
        {
            "network": replace(config.network, d_head="classifier", classes=CLASSES),
            "penalties": replace(config.penalties, style=Weighted(0.1)),
        },
        {"discriminator": "fastgan"},
        {"discriminator": "unet", "network": replace(config.network, d_channels=4)},
        {"discriminator": "msg-gan"},
    ):
        changed = replace(config, **change)
        try:
            changed.check()
        except Refused:
            continue
        return changed
    raise AssertionError("nothing that a part wants makes these settings possible")


def structure(config: Config) -> Hashable:
    """Return what settings are made of: recipes of several sizes differ in numbers only, when they are small."""
    network = config.network
    heads = network.d_head, network.g_conditional, network.pack, network.mbstd_group, network.g_spectral_norm
    besides = config.augment.apa, config.augment.pipe, config.top_k < 1, config.mixed_precision
    return frozenset(parts(config)), heads, besides


def cases() -> dict[str, Config]:
    """Return the small runs, each structure once."""
    found: dict[Hashable, tuple[str, Config]] = {}
    for name, config in candidates().items():
        run = fit(small(config))
        found.setdefault(structure(run), (name, run))
    return dict(found.values())


CASES = cases()
