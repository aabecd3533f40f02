"""Where W&B shows a run, without loading wandb, which takes a second."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from trainer.config.wandb_environment import CLOUD, resolve_mode
from trainer.core.advice import command
from trainer.core.migration import load_json
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tracker import Identity


@dataclass(frozen=True)
class WandbLink:
    """What a run is called in W&B, and where it is to be seen."""

    state: str
    """online; offline: it waits on this disk for `launcher sync`; unsent: nothing was sent yet; disabled."""
    app: str
    project: str | None
    entity: str | None
    """None: the default one of the key's owner, which only the server knows."""
    id: str | None

    @property
    def url(self) -> str | None:
        """The run's page; None where it has none, or its entity is not known here."""
        known = self.state == "online" and self.entity
        return f"{self.app}/{self.entity}/{self.project}/runs/{self.id}" if known else None

    def words(self, run: RunFolder) -> str:
        """Return the page, or how to get there."""
        if self.state == "online":
            return self.url or f"{self.app}, project {self.project}, run {self.id}, in your default entity"
        if self.state == "offline":
            return f"offline: {command('launcher', 'sync', run.path)}"
        return {"unsent": "nothing sent yet", "disabled": "off"}[self.state]


def wandb_link(run: RunFolder) -> WandbLink:
    """Tell where W&B shows a run. What was sent is told by the folders that wandb has left."""
    try:
        mode = load_json(run.config)["tracking"]["mode"]
    except (OSError, ValueError, TypeError, KeyError):
        mode = "auto"
    try:
        identity = Identity.load(run.wandb_identity)
    except (OSError, ValueError, TypeError, KeyError):
        identity = None
    # What was sent counts, not what the settings say: `sync` may have sent an offline run since.
    if (run.wandb / "online").is_dir():
        state = "online"
    elif mode == "disabled":
        state = "disabled"
    else:
        state = "offline" if any(run.wandb.glob("offline-run-*")) else "unsent"
    server = os.environ.get("WANDB_BASE_URL", CLOUD).rstrip("/")
    # W&B's own cloud answers programs at another address than it shows pages at; a server of one's own has one address.
    app = "https://wandb.ai" if server == CLOUD else server
    if identity is None or not identity.segments:
        return WandbLink("disabled" if state == "disabled" else "unsent", app, None, None, None)
    return WandbLink(state, app, identity.project, identity.entity, identity.segments[-1].id)


def future_link(run: RunFolder, mode: str) -> str:
    """Say in words where W&B will show a run that has not begun."""
    return replace(wandb_link(run), state=resolve_mode(mode)).words(run)
