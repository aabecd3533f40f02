"""What a training process is told of whatever started it; it knows nothing else of clusters."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from trainer.core.stopping import StopRequest
from trainer.runs.lease_holder import THIS_MACHINE, Owner

OWNER = "LIENZO_OWNER"  # tells a process for whom its parent holds the run folder


@dataclass(frozen=True)
class JobContext:
    """The seam between a training process and the job that it belongs to. The process answers with an `Outcome`."""

    owner: Owner = field(default_factory=lambda: Owner(os.environ.get(OWNER, THIS_MACHINE)))
    """Names the job in the run folder's lease."""
    attempt: int = 0
    """How often the job was started before: a later attempt takes the run over from an earlier one."""
    place: str = "this machine"
    """The node, as messages name it."""
    own_log: bool = False
    """Each process has a log of its own, rather than one terminal for all."""
    stop: StopRequest = field(default_factory=StopRequest)
    """Asked in each step whether this process should stop."""
