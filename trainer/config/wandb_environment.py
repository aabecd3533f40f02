"""What W&B's own variables and settings mean to a run: key, server and mode; its name and the like, when it begins.

docs/tracking.md has the list for users. wandb itself is not loaded to find this out: that takes a second, and it lays
its hands on the standard streams.
"""

from __future__ import annotations

import configparser
import netrc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Set before wandb is imported, which reads some of them then. What the user has set wins.
DEFAULTS = {
    "WANDB_ERROR_REPORTING": "false",  # nothing leaves a cluster but what we send
    "WANDB_INIT_TIMEOUT": "30",  # its own 90 s are long where the server is away
    "WANDB_FINISH_TIMEOUT": "300",  # else a dead server holds up the end without limit
    "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "5",  # s, a whole number: of 0.5 nothing is sent before the end
    "WANDB__FILE_STREAM_RETRY_MAX": "1000000",  # a stream that has given up drops everything later in silence
    "WANDB__TRANSACTION_LOG_FLUSH_INTERVAL": "1",  # offline, what is not flushed is lost by a kill
}


# What a new run takes from the environment, over lienzo.toml and under the command line. It is kept in the run folder,
# so that a resume from another shell stays in the same W&B run.
SETTINGS = {
    **{"project": "WANDB_PROJECT", "entity": "WANDB_ENTITY", "name": "WANDB_NAME", "group": "WANDB_RUN_GROUP"},
    **{"job_type": "WANDB_JOB_TYPE", "notes": "WANDB_NOTES", "tags": "WANDB_TAGS"},
}

OWN_ID = "each run folder has a W&B run of its own, named in its wandb.json"
OVERRIDDEN = {
    **dict.fromkeys(("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM"), OWN_ID),
    "WANDB_SWEEP_ID": "a run's settings come from its command line; launcher study compares settings",
    "WANDB_DIR": "wandb's files lie in the run folder",
}
"""Variables of which wandb would take what is decided otherwise, and by what."""

CLOUD = "https://api.wandb.ai"
CLOUD_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Names of W&B's own server: wandb takes a key that netrc has for either."""

ALIASES = ("WANDB_RUN_NAME", "WANDB_RUN_NOTES", "WANDB_RUN_TAGS", "WANDB_RUN_JOB_TYPE", "WANDB_ROOT_DIR")


def from_environment() -> dict[str, str]:
    """Return the settings of tracking that W&B's variables name."""
    return {setting: os.environ[name] for setting, name in SETTINGS.items() if os.environ.get(name)}


def overridden_variables() -> Iterator[str]:
    """Yield a line for each variable that is set in vain."""
    for name, why in OVERRIDDEN.items():
        if os.environ.get(name):
            yield f"{name} is not used: {why}"


def forget_run() -> None:
    """Take out of the environment what would tell wandb which run this is: the run folder does."""
    for name in (*SETTINGS.values(), *OVERRIDDEN, *ALIASES):
        os.environ.pop(name, None)


def import_wandb() -> Any:
    """Load wandb."""
    os.environ.update(DEFAULTS | os.environ)
    import wandb

    return wandb


def server_url() -> str:
    """Return the W&B server that the environment names, or a file that `wandb login --host` has written, else W&B's."""
    folder = Path(os.environ.get("WANDB_DIR") or ".")
    workspace = folder / (".wandb" if (folder / ".wandb").exists() else "wandb")
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    named = os.environ.get("WANDB_BASE_URL") or url_in(workspace / "settings") or url_in(user / "settings")
    return (named or CLOUD).rstrip("/")


def url_in(settings: Path) -> str | None:
    """Return the server that a settings file of wandb's names; None: none, or it cannot be read."""
    parser = configparser.ConfigParser(interpolation=None)  # a % in a URL refers to nothing
    try:
        parser.read_string(settings.read_text())
    except (OSError, ValueError, configparser.Error):
        return None
    return parser.get("default", "base_url", fallback=None)


def has_key() -> bool:
    """Whether W&B would find a key: in the environment, or in netrc for the server in use."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path, host = Path(os.environ.get("NETRC", "~/.netrc")).expanduser(), urlsplit(server_url()).netloc
    try:
        keys = netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return "default" in keys or any(name in keys for name in (CLOUD_HOSTS if host in CLOUD_HOSTS else (host,)))


def resolve_mode(mode: str) -> str:
    """What "auto" means here."""
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
    return "offline" if mode == "dryrun" else mode  # wandb's old word for it
