"""What a roll-back changes besides the draws: functions from settings to settings, one line each in the registry.

The settings in force are a function of the run's own and of the list of rollbacks, so a resumed run has the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainer.config.compatibility import config_problems
from trainer.config.config import Config
from trainer.config.groups import parse_changes
from trainer.losses.penalties.base import Weighted

GRADIENT_PENALTIES = "r1", "r2", "wgan_gp", "dragan"
FIRST_R1 = 1.0  # where no gradient was penalised before

SettingsChange = Callable[[Config], Config | None]
"""Returns the changed settings, or None where there is nothing to change."""


def halve_rates(config: Config) -> Config:
    """Halve both learning rates."""
    o = config.optimizer
    return replace(config, optimizer=replace(o, g_lr=o.g_lr / 2, d_lr=o.d_lr / 2))


def penalise_more(config: Config) -> Config:
    """Double the gradient penalties of D; give it R1 (Mescheder et al. 2018) if it has none."""
    p = config.penalties
    doubled = {n: doubled_weight(getattr(p, n)) for n in GRADIENT_PENALTIES if getattr(p, n).weight}
    return replace(config, penalties=replace(p, **(doubled or {"r1": Weighted(FIRST_R1)})))


def doubled_weight(weighted: Weighted) -> Weighted:
    """Return a penalty that counts twice as much, now and in the end."""
    final = None if weighted.final is None else 2 * weighted.final
    return replace(weighted, weight=2 * weighted.weight, final=final)


def turn_on_diffaugment(config: Config) -> Config | None:
    """Show D augmented pictures (DiffAugment, Zhao et al. 2020), if it sees them as they are."""
    a = config.augment
    return replace(config, augment=replace(a, kind="diffaugment")) if a.kind == "none" and config.network.size else None


def double_pack(config: Config) -> Config | None:
    """Let D judge twice as many pictures together (PacGAN, Lin et al. 2018), if its first layer can grow.

    It cannot where a layer is scaled by what it looks like: by its spectral norm, or by its inputs as in StyleGAN2.
    """
    if config.network.d_spectral_norm or config.discriminator == "stylegan2":
        return None
    return replace(config, network=replace(config.network, pack=2 * config.network.pack))


def only_draw(config: Config) -> Config:
    """Change nothing but the draws, which each rollback changes."""
    return config


CHANGES_BY_NAME: dict[str, SettingsChange] = {
    "learning-rate": halve_rates,
    "penalty": penalise_more,
    "augmentation": turn_on_diffaugment,
    "packing": double_pack,
    "draws": only_draw,
}


def apply_change(config: Config, change: str) -> Config | None:
    """Return settings with a change, or None where it does not go with the rest of them."""
    changed = CHANGES_BY_NAME[change](config)
    return None if changed is None or any(config_problems(changed)) or changed.network.check() else changed


def apply_rollbacks(config: Config, rollbacks: Iterable[Mapping[str, Any]]) -> Config:
    """Return the settings in force after these rollbacks."""
    for rollback in rollbacks:
        if change := rollback.get("change"):
            changed = apply_change(config, change)
            assert changed is not None, change  # it was when it was chosen, and settings that matter do not change
            config = changed
    return config


def next_change(config: Config, changes: str, before: int) -> str:
    """Return the change that is due after `before` earlier ones: in turn, passing over those that do not apply.

    Args:
        config: the settings in force.
        changes: of the settings.
        before: roll-backs that the collapse monitor has asked for before.
    """
    names = parse_changes(changes)
    turn = [names[(before + k) % len(names)] for k in range(len(names))]
    return next((name for name in turn if apply_change(config, name) is not None), "draws")


def fit_state(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make a saved state fit changed settings: what penalties remember begins anew, D grows as it is packed.

    A packed discriminator's first layer takes m pictures on top of one another. Each gets its weights divided by m:
    what D says of m equal pictures, it said before of one of them.

    Args:
        tensors: the saved state, by name.
        wanted: that of the changed settings, newly made.
    """
    fitted = {}
    for name, new in wanted.items():
        old = tensors.get(name, new)
        if old.shape != new.shape:
            times = [b // a for a, b in zip(old.shape, new.shape, strict=True)]
            # Only weights are divided: each part has the gradient that the whole had, so Adam's moments are kept.
            old = old.repeat(times) / (torch.Size(times).numel() if name.startswith("discriminator.") else 1)
        fitted[name] = old
    return fitted
