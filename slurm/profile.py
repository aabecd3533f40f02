"""What is particular to a site: a TOML file that names the partition, the account, how to enter the container, …"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from command_line.arguments import expand
from slurm.environment import SITE, site_default
from slurm.settings import ClusterRefused

PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Profile:
    """A site's ways; what a user gives on the command line wins over them."""

    partition: str = ""
    """Where jobs go; empty: the cluster's default."""
    account: str = ""
    """Who pays."""
    qos: str = ""
    """Quality of service."""
    constraint: str = ""
    """Features that the nodes must have."""
    time: str = ""
    """Time limit of one start of the job, as Slurm writes it: minutes, [days-]hours:minutes:seconds."""
    gpus_per_node: int = 0
    """GPUs of a node; 0: what the partition's nodes have."""
    memory_gb: int = 0
    """Memory of a node; 0: what the site gives by default."""
    exclusive: bool = False
    """Share no node with other jobs."""
    warn_s: int = 120
    """Slurm warns so many seconds before the time limit: a save must fit in."""
    setup: tuple[str, ...] = ()
    """Lines of shell that each start of the job runs first, such as "module load cuda"."""
    environment: tuple[str, ...] = ()
    """Variables of the job, NAME=VALUE each. No secrets: they stand in the batch script."""
    interface: str = ""
    """Network interface for the exchange between nodes; empty: the one that leads to the first node."""
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
        """Refuse what cannot be.

        Raises:
            Refused: naming the value.
        """
        if self.container not in ("", "pyxis", "apptainer"):
            raise ClusterRefused(f"{where}: container must be 'pyxis' or 'apptainer', but is {self.container!r}")
        if self.container and not self.image:
            raise ClusterRefused(f"{where}: container = {self.container!r} needs an image")
        if self.warn_s < 1:
            raise ClusterRefused(f"{where}: warn_s must be positive, but is {self.warn_s}")
        for name in ("gpus_per_node", "memory_gb"):
            if getattr(self, name) < 0:
                raise ClusterRefused(f"{where}: {name} must not be negative, but is {getattr(self, name)}")
        for variable in self.environment:
            if not variable.partition("=")[0].isidentifier() or "=" not in variable:
                raise ClusterRefused(f"{where}: environment holds {variable!r}, which is not NAME=VALUE")


def with_site_defaults(profile: Profile, environment: Mapping[str, str]) -> Profile:
    """Return the profile with what a user has set for sbatch (SBATCH_PARTITION, …) where it says nothing itself."""
    filled: dict[str, Any] = {n: site_default(n, environment) for n in SITE if not getattr(profile, n)}
    return replace(profile, **filled)


def load(name: str) -> Profile:
    """Read a profile by its path, or one of the documented examples by its name.

    Raises:
        Refused: there is none, or it cannot be understood.
    """
    try:
        path = expand(name) if Path(name).suffix == ".toml" else PROFILES / f"{name}.toml"
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.toml")))
        raise ClusterRefused(f"there is no profile {path}; name a .toml file, or one of {known}") from None
    except (OSError, ValueError) as error:
        raise ClusterRefused(f"{name} cannot be read: {error}") from error
    profile = Profile(**{key: value_of(key, value, str(path)) for key, value in values.items()})
    profile.check(str(path))
    return profile


def at_home(path: str) -> str:
    """Return what may begin with a path, with the home that a leading `~` stands for."""
    return str(expand(path)) if path.startswith("~") else path


def value_of(key: str, value: Any, where: str) -> Any:
    """Check one setting of a profile, and make lists tuples."""
    hints = get_type_hints(Profile)
    names = [f.name for f in fields(Profile)]
    if key not in names:
        near = difflib.get_close_matches(key, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise ClusterRefused(f"{where}: there is no setting {key!r}; {hint}")
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = tuple(map(at_home, value) if key == "mounts" else value)
    if key in ("image", "python") and isinstance(value, str):
        value = at_home(value)
    wanted = tuple if hints[key] == tuple[str, ...] else hints[key]
    if type(value) is not wanted:
        kind = {str: "text", int: "a whole number", bool: "true or false", tuple: "a list of texts"}[wanted]
        raise ClusterRefused(f"{where}: {key} must be {kind}, but is {value!r}")
    return value
