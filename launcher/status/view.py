"""How `launcher status` looks: a table of runs, or all that is known of one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher.jobs.attempts import to_seconds
from launcher.status import words
from launcher.status.run_status import RunStatus
from trainer.tracking.console import format_duration

COLUMNS = ("run", "state", "nodes", "restarts", "images", "images/s", "left", "last metrics", "durable", "W&B")


def status_table(found: Sequence[RunStatus], terminal: bool) -> RenderableType:
    """Return one row for each run, narrow enough for a terminal, and what may be done next."""
    made = Table(*COLUMNS, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for status in found:
        now, url = status.progress, status.wandb.url
        # A terminal shows a link behind the short id; in a pipe the address itself is needed.
        page = Text(str(status.wandb.id), f"link {url}") if terminal and url else Text(url or status.wandb.state)
        percent = (
            f"{now.images_seen / now.total_images:.0%} of {words.short(now.total_images)}" if now.total_images else ""
        )
        newest = words.metrics(status, ("loss_", "swd", "fid", "kid"))
        average = f"avg {now.images_per_s_average:,.0f}" if now.images_per_s_average else ""
        made.add_row(
            # Folded rather than cut: a path is there to be copied.
            Text(str(status.run.path), overflow="fold"),
            words.state(status),
            ", ".join(status.nodes) or status.nodes_asked or "",
            words.restarts(status),
            f"{now.images_seen:,}\n{percent}",
            words.lines(f"{status.images_per_s:,.0f}" if status.images_per_s else "", average),
            "" if status.eta_s is None else format_duration(status.eta_s),
            # Ten columns must fit into a terminal.
            Text("\n".join(m.replace("loss_d", "D").replace("loss_g", "G") for m in newest), no_wrap=True),
            words.lines(
                f"{now.checkpoint_images or 0:,}", f"at risk {status.at_risk:,}" if status.state.under_way else ""
            ),
            page,
        )
    hints = ["at risk: what a kill now would lose"] if any(status.state.under_way for status in found) else []
    hints += ["go on with: python -m launcher resume RUN"] if any(status.next for status in found) else []
    offline = any(status.wandb.state == "offline" for status in found)
    hints += ["send to W&B what is offline: python -m launcher sync RUN"] if offline else []
    return Group(made, *([Text("\n" + "\n".join(hints), "dim")] if hints else []))


def run_details(status: RunStatus) -> RenderableType:
    """Return all that is known of a run."""
    rows: dict[str, str | Text] = {
        "run": str(status.run.path),
        "state": words.state(status, "  "),
        "next": status.next or "",
        "where": f"job {status.job}, {words.nodes(status)}" if status.job else words.nodes(status),
        "restarts": words.restarts(status, ", "),
        "images": words.images(status),
        "images/s": words.speed(status),
        "ETA": words.eta(status),
        "metrics": Text(", ".join(words.metrics(status, ("",)))),
        "durable": words.durable(status, "; "),
        "W&B": Text(status.wandb.words(status.run), overflow="fold"),
    }
    made = Table.grid(padding=(0, 2, 0, 0))
    for name, what in rows.items():
        if what:
            made.add_row(Text(name, "bold"), what if isinstance(what, Text) else Text(what))
    return Group(made, "", attempts_table(status)) if status.attempts else made


def attempts_table(status: RunStatus) -> Table:
    """Return one row for each attempt of a run."""
    columns = ("attempt", "began", "took", "job", "nodes", "images", "ended")
    made = Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for attempt in status.attempts:
        took = format_duration(to_seconds(attempt.ended) - to_seconds(attempt.began)) if attempt.ended else ""
        # Only the newest attempt of a live run can be going on; of any other without a cause, nobody knows the end.
        going_on = "goes on" if status.state.live and attempt is status.attempts[-1] else "without a last word"
        ended = f"{attempt.cause or going_on}{f': {attempt.detail}' if attempt.detail else ''}"
        made.add_row(
            "" if attempt.number is None else str(attempt.number),
            words.clock(to_seconds(attempt.began)),
            took,
            str(attempt.job or ""),
            ", ".join(attempt.nodes) if attempt.job else "this machine",
            f"{attempt.images_from:,}{'' if attempt.images_saved is None else f' → {attempt.images_saved:,}'}",
            Text(ended),
        )
    return made
