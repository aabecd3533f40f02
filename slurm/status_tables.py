"""The tables of nodes and jobs that `python -m slurm status` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slurm.reason_codes import describe_reason
from slurm.records import Node, SlurmJob


def print_status(nodes: Sequence[Node], jobs: Sequence[SlurmJob]) -> None:
    """Print nodes and jobs."""
    print_table("nodes", ("node", "state", "cores", "memory", "GPUs", "reason"), [
        (one.name, one.state, str(one.cpus), f"{one.memory_mb} MB", str(one.gpus), one.reason) for one in nodes
    ])  # fmt: skip
    print_table("jobs", ("job", "name", "state", "why", "nodes", "restarts"), [
        (one.id, one.name, one.state, describe_reason(one.reason), one.node_list, str(one.restarts)) for one in jobs
    ])  # fmt: skip


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table; a line "no TITLE" if it is empty."""
    console = Console(highlight=False)
    if not rows:
        console.print(f"no {title}")
        return
    drawn = Table(*columns, box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        drawn.add_row(*(escape(cell) for cell in row))  # [brackets] in names are no markup
    console.print(drawn)
