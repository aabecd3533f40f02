"""The options of `trainer serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from command_line.help_page import HelpPage


@dataclass(frozen=True)
class Serve:
    """Show what generators paint: a page for a browser and an API, until Ctrl-C (docs/painting.md).

    Only this machine sees it, unless --host says otherwise; then whoever opens it needs a token, which the link that is
    printed carries. The description of the API is at /openapi.json.
    """

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME": "at http://127.0.0.1:8000",
            "runs/ONE runs/OTHER --host 0.0.0.0": "two, for others, with a token",
        },
    )

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run folders; all of their checkpoints can be looked at, side by side."""
    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0: at all addresses of this machine."""
    port: int = 8000
    """The port to listen at; 0: one that is free."""
    token_file: Path | None = None
    """A file whose first line is the token, of 16 characters at least; default: a random one where --host needs it."""
    allow_host: tuple[str, ...] = ()
    """Names under which browsers reach this machine, besides its own, such as that of a proxy."""
    batch_size: int | None = None
    """Pictures that a generator paints at once; default: 2 on a CPU, where each of them takes its time, 16 on a GPU."""
    generators: int = 4
    """How many generators are kept in memory besides the newest of each run; others are loaded when they are wanted."""
    cache_mb: int = 64
    """Memory for answers that are given again."""
    timeout_s: float = 30.0
    """Seconds after which a request is given up."""
