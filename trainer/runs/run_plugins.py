"""Which other packages a run uses something of, as `plugins.json` in its folder says; without them it cannot go on."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from command_line.plugins import Registry
from shards.atomic_files import write_atomically
from trainer.augment import AUGMENTATIONS
from trainer.core.fields import Refused
from trainer.losses.objectives import OBJECTIVES
from trainer.networks import DISCRIMINATORS, GENERATORS
from trainer.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from trainer.config.config import Config


def chosen_parts(config: Config) -> list[tuple[Registry[Any], str]]:
    """Return each registry with the name that the settings choose of it."""
    chosen: list[tuple[Registry[Any], str]] = [
        (GENERATORS, config.generator),
        (DISCRIMINATORS, config.discriminator),
        (OBJECTIVES, config.objective),
        (AUGMENTATIONS, config.augment.kind),
        *((config.penalties.plugins, active.name) for active in config.penalties.active()),
    ]
    if config.metrics.every_images:
        # Here, because few runs are measured while they train, and both load much.
        from trainer.extractors import EXTRACTORS
        from trainer.metrics import METRICS

        chosen += [(METRICS, name) for name in config.metrics.chosen]
        chosen += [(EXTRACTORS, config.metrics.extractor)] if config.metrics.extractor else []
    return chosen


def plugins_used(config: Config) -> dict[str, dict[str, Any]]:
    """Return the packages that the settings use something of, by name: their versions, and what is used."""
    used: dict[str, dict[str, Any]] = {}
    for registry, name in chosen_parts(config):
        if plugin := registry.plugins.get(name):
            entry = used.setdefault(plugin.package, {"version": plugin.version, "adds": []})
            entry["adds"].append(f"{plugin.group} {name}")
    return used


def note_plugins(run: RunFolder, config: Config) -> None:
    """Write down which packages a run uses; nothing where it uses none.

    Raises:
        OSError: it cannot be written.
    """
    used = plugins_used(config)
    if used or run.plugins.exists():
        write_atomically(run.plugins, (json.dumps(used, indent=2) + "\n").encode())


def check_plugins(run: RunFolder) -> None:
    """Refuse a run of which a package is not installed.

    Raises:
        Refused: naming the package; or plugins.json cannot be read.
    """
    try:
        used = json.loads(run.plugins.read_text())
        needs = [(package, f"{of['version']}", ", ".join(of["adds"])) for package, of in used.items()]
    except FileNotFoundError:
        return
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Refused(f"{run.plugins} cannot be read: {error}") from error
    for package, wanted, adds in needs:
        try:
            version(package)
        except PackageNotFoundError:
            raise Refused(
                f"{run.path} uses the package {package} {wanted} ({adds}), which is not installed here: "
                f"pip install {package}=={wanted}"
            ) from None
