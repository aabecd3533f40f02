"""Registries that other packages add to, by entry points: the group `lienzo.generators` adds generators, and so on.

Names are known from the metadata of installed packages. A plugin is imported when it is asked for, and not before: one
that is broken is in nobody's way who does not use it, and commands that need none load none.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, distributions
from typing import Any, TypeVar

T = TypeVar("T")
PREFIX = "lienzo."
LOADED: set[tuple[str, str]] = set()  # packages of which this process uses something, with their versions


class PluginError(Exception):
    """A plugin cannot be used; the message says which one, why, and what to do."""


@dataclass(frozen=True)
class Plugin:
    """Something that another package adds."""

    group: str
    """What it adds to, such as generators."""
    name: str
    """How settings name it."""
    package: str
    version: str
    point: EntryPoint

    def __str__(self) -> str:
        return f"{self.package} {self.version}"

    def load(self, wanted: str, fits: Callable[[Any], bool]) -> Any:
        """Import it.

        Args:
            wanted: what it must be, in words.
            fits: tells whether it is that.

        Raises:
            PluginError: it cannot be imported, or is something else.
        """
        what = f"{self.name!r} of the package {self} (lienzo.{self.group})"
        do = f"install a version of {self.package} that goes with this lienzo, or uninstall it"
        try:
            found = self.point.load()
        except (Exception, SystemExit) as error:  # it is other people's code, which may raise anything
            said = " ".join(str(error).split())
            raise PluginError(f"{what} cannot be loaded: {type(error).__name__}: {said}; {do}") from error
        if not fits(found):
            raise PluginError(f"{what} is {found!r}, but must be {wanted}; {do}")
        LOADED.add((self.package, self.version))
        return found


@cache
def all_plugins() -> tuple[Plugin, ...]:
    """Return what the installed packages add, sorted by group, name and package."""
    found: dict[tuple[str, str, str], Plugin] = {}
    for package in distributions():
        for point in package.entry_points:
            if point.group.startswith(PREFIX):
                group = point.group.removeprefix(PREFIX)
                plugin = Plugin(group, point.name, package.name, package.version, point)
                # Of a package that is installed twice, Python imports the first.
                found.setdefault((group, point.name, package.name), plugin)
    return tuple(sorted(found.values(), key=lambda plugin: (plugin.group, plugin.name, plugin.package)))


def plugins_in_use() -> str:
    """Return the packages that this process uses something of, with their versions; empty: none."""
    return ", ".join(f"{package} {version}" for package, version in sorted(LOADED))


class Registry(UserDict[str, T]):
    """What there is of one kind, by name: ours, and what other packages add, which is imported when it is asked for.

    Nobody replaces what is ours, and of two packages that add the same name neither wins: `rejected` says so.

    Args:
        group: of the entry points, without `lienzo.`.
        ours: by name.
        wanted: what an entry is, in words.
        fits: tells whether something is that.
        taken: further names that are ours.
        named: tells whether a name will do.
    """

    def __init__(
        self,
        group: str,
        ours: Mapping[str, T],
        wanted: str,
        fits: Callable[[Any], bool],
        taken: tuple[str, ...] = (),
        named: Callable[[str], bool] = bool,
    ) -> None:
        super().__init__(ours)
        self.group, self.wanted, self.fits = group, wanted, fits
        self.rejected: dict[Plugin, str] = {}
        self.plugins: dict[str, Plugin] = {}
        for plugin in all_plugins():
            if plugin.group != group:
                continue
            if problem := self.problem_of(plugin, {*ours, *taken}, named):
                self.rejected[plugin] = problem
            else:
                self.plugins[plugin.name] = plugin
        self.data |= dict.fromkeys(self.plugins)  # type: ignore[arg-type]  # they are loaded when they are asked for

    @staticmethod
    def problem_of(plugin: Plugin, ours: set[str], named: Callable[[str], bool]) -> str | None:
        """Return why a plugin is left out, or None."""
        if plugin.name in ours:
            return f"lienzo has {plugin.name!r} itself, which no package replaces"
        if not named(plugin.name):
            return f"{plugin.name!r} cannot be a name here"
        same = [other for other in all_plugins() if (other.group, other.name) == (plugin.group, plugin.name)]
        if len(same) > 1:
            return f"{' and '.join(str(other) for other in same)} add {plugin.name!r}: uninstall all but one"
        return None

    def __getitem__(self, name: str) -> T:
        value = super().__getitem__(name)
        if value is None:
            value = self.data[name] = self.plugins[name].load(self.wanted, self.fits)
        return value

    def __missing__(self, name: str) -> T:
        for plugin, problem in self.rejected.items():
            if plugin.name == name:
                raise PluginError(f"{name!r} cannot be used: {problem}")
        raise KeyError(name)

    def ours(self) -> Iterator[tuple[str, T]]:
        """Yield what is not of other packages, by name."""
        return ((name, value) for name, value in self.data.items() if name not in self.plugins)
