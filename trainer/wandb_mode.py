"""What W&B's own settings say before anything is sent: is there a key, for which server, and which mode is meant.

wandb itself is loaded when nothing else can tell: that takes a second, and it lays its hands on the standard streams.
"""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Set before wandb is imported, which reads some of them then. What the user has set wins.
DEFAULTS = {
    "WANDB_ERROR_REPORTING": "false",  # nothing leaves a cluster but what we send
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_FINISH_TIMEOUT": "300",
    "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "5",
    "WANDB__FILE_STREAM_RETRY_MAX": "1000000",  # a stream that has given up drops everything later in silence
    "WANDB__TRANSACTION_LOG_FLUSH_INTERVAL": "1",  # offline, what is not flushed is lost by a kill
}


def client() -> Any:
    """Load wandb."""
    os.environ.update(DEFAULTS | os.environ)
    import wandb

    return wandb


def server_url() -> str:
    """The W&B server that the environment and the user's settings name."""
    return os.environ.get("WANDB_BASE_URL") or str(client().setup().settings.base_url)


def has_key() -> bool:
    """Whether W&B would find a key: in the environment, or in netrc for the server in use."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return path.exists() and netrc.netrc(path).authenticators(urlsplit(server_url()).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def resolve_mode(mode: str) -> str:
    """What "auto" means here."""
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
    return "offline" if mode == "dryrun" else mode
