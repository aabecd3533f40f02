"""A site profile: a TOML file with the partition, the account, how to enter the container, and so on."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from command_line.arguments import expand_user
from command_line.plugins import PluginError, Registry
from command_line.suggestion import did_you_mean
from slurm.command_environment import SITE_SETTINGS, site_default
from slurm.errors import SlurmUsageError

PROFILES = Path(__file__).parent / "profiles"
BUNDLED = tuple(sorted(path.stem for path in PROFILES.glob("*.toml")))
# Profiles of other packages, such as one that a computing centre installs for its users.
SITES: Registry[Mapping[str, Any]] = Registry(
    "sites", {}, "a table of the settings of a profile", lambda value: isinstance(value, Mapping), BUNDLED
)


@dataclass(frozen=True)
class Profile:
    """The settings of a site; options of the command line override them."""

    partition: str = ""
    """Where jobs go; empty: the cluster's default."""
    account: str = ""
    """Who pays."""
    qos: str = ""
    """Quality of service."""
    constraint: str = ""
    """Features that the nodes must have."""
    time: str = ""
    """Time limit of one attempt of the job, in Slurm's notation: minutes, [days-]hours:minutes:seconds."""
    gpus_per_node: int = 0
    """GPUs of a node; 0: what the partition's nodes have."""
    memory_gb: int = 0
    """Memory of a node; 0: what the site gives by default."""
    exclusive: bool = False
    """Share no node with other jobs."""
    warn_s: int = 120
    """Slurm signals so many seconds before the time limit: long enough to save a checkpoint."""
    setup: tuple[str, ...] = ()
    """Shell lines that each attempt of the job runs first, such as "module load cuda"."""
    environment: tuple[str, ...] = ()
    """Variables of the job, NAME=VALUE each. No secrets: they stand in the batch script."""
    interface: str = ""
    """Network interface between the nodes; empty: the one that leads to the first node."""
    container: str = ""
    """pyxis or apptainer: how the ranks enter the image."""
    image: str = ""
    """The container's image."""
    mounts: tuple[str, ...] = ()
    """Folders that the container sees, HOST:CONTAINER each."""
    python: str = ""
    """The interpreter of the ranks, where it is not the one that submits (in a container, say)."""
    srun: tuple[str, ...] = ()
    """Further arguments of srun."""

    def check(self, where: str) -> None:
        """Check all values.

        Args:
            where: the values come from, for the message.

        Raises:
            SlurmUsageError: naming one that is impossible.
        """
        if self.container not in ("", "pyxis", "apptainer"):
            raise SlurmUsageError(f"{where}: container must be 'pyxis' or 'apptainer', but is {self.container!r}")
        if self.container and not self.image:
            raise SlurmUsageError(f"{where}: container = {self.container!r} needs an image")
        if self.warn_s < 1:
            raise SlurmUsageError(f"{where}: warn_s must be positive, but is {self.warn_s}")
        for name in ("gpus_per_node", "memory_gb"):
            if getattr(self, name) < 0:
                raise SlurmUsageError(f"{where}: {name} must not be negative, but is {getattr(self, name)}")
        for variable in self.environment:
            if not variable.partition("=")[0].isidentifier() or "=" not in variable:
                raise SlurmUsageError(f"{where}: environment holds {variable!r}, which is not NAME=VALUE")


def with_site_defaults(profile: Profile, environment: Mapping[str, str]) -> Profile:
    """Return the profile, with the user's variables of sbatch (SBATCH_PARTITION, …) where the profile sets nothing."""
    filled: dict[str, Any] = {n: site_default(n, environment) for n in SITE_SETTINGS if not getattr(profile, n)}
    return replace(profile, **filled)


def load_profile(name: str) -> Profile:
    """Read a profile: by the path of its file, or by its name one of the bundled examples or of a plugin.

    Raises:
        SlurmUsageError: there is none, or it is invalid.
    """
    if name in SITES:
        try:
            return checked_profile(SITES[name], f"the site {name} of {SITES.plugins[name]}")
        except PluginError as error:
            raise SlurmUsageError(f"the site {error}") from error
    try:
        path = expand_user(name) if Path(name).suffix == ".toml" else PROFILES / f"{name}.toml"
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        known = ", ".join((*BUNDLED, *SITES))
        raise SlurmUsageError(f"there is no profile {path}; name a .toml file, or one of {known}") from None
    except (OSError, ValueError) as error:
        raise SlurmUsageError(f"{name} cannot be read: {error}") from error
    return checked_profile(values, str(path))


def checked_profile(values: Mapping[str, Any], where: str) -> Profile:
    """Return a profile with these settings.

    Raises:
        SlurmUsageError: one is unknown, of another type, or impossible.
    """
    profile = Profile(**{key: checked_value(key, value, where) for key, value in values.items()})
    profile.check(where)
    return profile


def expand_leading_home(path: str) -> str:
    """Return a path, or HOST:CONTAINER, with a leading `~` replaced by the home folder."""
    return str(expand_user(path)) if path.startswith("~") else path


def checked_value(key: str, value: Any, where: str) -> Any:
    """Return one value of a profile, checked: lists become tuples, and `~` becomes the home folder.

    Raises:
        SlurmUsageError: there is no such setting, or the value has another type.
    """
    hints = get_type_hints(Profile)
    names = [f.name for f in fields(Profile)]
    if key not in names:
        hint = did_you_mean(key, names, f"there are {', '.join(names)}")
        raise SlurmUsageError(f"{where}: there is no setting {key!r}; {hint}")
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = tuple(map(expand_leading_home, value) if key == "mounts" else value)
    if key in ("image", "python") and isinstance(value, str):
        value = expand_leading_home(value)
    wanted = tuple if hints[key] == tuple[str, ...] else hints[key]
    if type(value) is not wanted:  # not isinstance: true is an int in Python
        kind = {str: "text", int: "a whole number", bool: "true or false", tuple: "a list of texts"}[wanted]
        raise SlurmUsageError(f"{where}: {key} must be {kind}, but is {value!r}")
    return value
