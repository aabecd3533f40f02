"""`launcher plugins`: what installed packages add to lienzo, and what of it cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from command_line.help_page import HelpPage
from command_line.plugins import Plugin, PluginError, Registry, all_plugins
from launcher.cli.wide_console import wide_console

GROUPS = (
    *("generators", "discriminators", "objectives", "penalties", "augmentations", "metrics", "extractors"),
    *("sources", "sites"),
)


@dataclass(frozen=True)
class Plugins:
    """List what installed packages add to lienzo by entry points, load each, and say what cannot be used
    (docs/plugins.md). The exit code is 1 where something cannot."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"": "what there is, and whether it can be used"})


def run_plugins(args: Plugins) -> int:
    """Carry out `plugins`."""
    found = all_plugins()
    if not found:
        print(f"no installed package adds anything to lienzo; one can add {', '.join(GROUPS)} (docs/plugins.md)")
        return 0
    problems = dict(find_problems(found))
    table = Table("adds", "name", "package", "version", "can it be used", box=None, padding=(0, 2, 0, 0))
    for plugin in found:
        state = problems.get(plugin)
        row = (plugin.group, plugin.name, plugin.package, plugin.version, f"no: {state}" if state else "yes")
        table.add_row(*map(Text, row))
    wide_console().print(table)
    return 1 if problems else 0


def find_problems(plugins: tuple[Plugin, ...]) -> Iterator[tuple[Plugin, str]]:
    """Yield the plugins that cannot be used, and why."""
    registries = {registry.group: registry for registry in all_registries()}
    for plugin in plugins:
        registry = registries.get(plugin.group)
        if registry is None:
            yield plugin, f"there is nothing called {plugin.group!r} to add to; there are {', '.join(GROUPS)}"
        elif plugin in registry.rejected:
            yield plugin, registry.rejected[plugin]
        else:
            try:
                registry[plugin.name]
            except PluginError as error:
                yield plugin, str(error)


def all_registries() -> tuple[Registry[Any], ...]:
    """Return all registries; torch is loaded for them."""
    from shards.sources.source import SOURCES
    from slurm.profile import SITES
    from trainer.augment import AUGMENTATIONS
    from trainer.extractors import EXTRACTORS
    from trainer.losses.objectives import OBJECTIVES
    from trainer.losses.penalties import Penalties
    from trainer.metrics import METRICS
    from trainer.networks import DISCRIMINATORS, GENERATORS

    parts = (GENERATORS, DISCRIMINATORS, OBJECTIVES, Penalties.plugins, AUGMENTATIONS, METRICS, EXTRACTORS)
    return (*parts, SOURCES, SITES)
