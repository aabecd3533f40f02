"""`python -m slurm up | down | status | fail | heal | drain`: a development cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from command_line.arguments import parse
from command_line.help_page import HelpPage
from command_line.printable import printable
from command_line.streams import run
from slurm.dev_cluster import FOLDER, DevCluster
from slurm.dev_settings import DevClusterSettings
from slurm.errors import SlurmError, SlurmUsageError
from slurm.status_tables import print_status

DESCRIPTION = """A real Slurm with several nodes on this one machine, to try jobs and disasters on.

  python -m slurm up --nodes 4       start it; all of it lives in ./.slurm-dev
  python -m slurm status             its nodes and its jobs
  python -m slurm fail n2            let a node die; heal n2 brings it back
  python -m slurm down               stop it, and every process of its jobs

What a command takes: python -m slurm COMMAND --help

Exit codes: 0 ok, 1 failed, 2 refused (bad input, or something is missing)."""


@dataclass(frozen=True)
class Up:
    """Start the cluster and wait until its nodes are ready. Partitions: main, and urgent, which preempts main."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "--nodes 4": "four nodes on this machine",
            "--grace-s 5 --requeue no": "a harsher site",
        },
    )

    folder: Path = Path(FOLDER)
    """Where all of it lives."""
    settings: Annotated[DevClusterSettings, tyro.conf.arg(name="")] = DevClusterSettings()


@dataclass(frozen=True)
class Down:
    """Stop the cluster and every process of its jobs; jobs that wait will wait again after `up`."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"": "and all that it runs"})

    folder: Path = Path(FOLDER)
    """Where the cluster lives."""


@dataclass(frozen=True)
class Status:
    """Show nodes and jobs."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"": "that of ./.slurm-dev"})

    folder: Path = Path(FOLDER)
    """Where the cluster lives."""


@dataclass(frozen=True)
class Fail:
    """Let a node die: SIGKILL to its slurmd and every process on it."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"n2": "as a crash of the machine would"})

    node: tyro.conf.Positional[str]
    """Such as n2."""
    folder: Path = Path(FOLDER)
    """Where the cluster lives."""


@dataclass(frozen=True)
class Heal:
    """Bring a dead or drained node back."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"n2": "after fail or drain"})

    node: tyro.conf.Positional[str]
    """Such as n2."""
    folder: Path = Path(FOLDER)
    """Where the cluster lives."""


@dataclass(frozen=True)
class Drain:
    """Let a node end what it runs and take no more."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"n2": "as an administrator does"})

    node: tyro.conf.Positional[str]
    """Such as n2."""
    folder: Path = Path(FOLDER)
    """Where the cluster lives."""


Command = Up | Down | Status | Fail | Heal | Drain


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed: Command = parse(Command, argv, "python -m slurm", description=DESCRIPTION)
    try:
        run_command(parsed, DevCluster(parsed.folder))
    except SlurmUsageError as error:
        print(f"refused: {printable(error)}", file=sys.stderr)
        return 2
    except (SlurmError, OSError) as error:  # OSError: a folder that cannot be written
        print(f"failed: {printable(error)}", file=sys.stderr)
        return 1
    return 0


def run_command(command: Command, cluster: DevCluster) -> None:
    """Run a command and print what it did.

    Raises:
        SlurmUsageError: it is refused.
        SlurmError: it failed.
    """
    match command:
        case Up():
            started = cluster.up(command.settings)
            print(f"{'up' if started else 'up already'}: {command.settings.nodes} nodes, in {cluster.folder}\n")
            print(f"export SLURM_CONF={cluster.conf}\n")
            print(f"next:\n  srun -N{min(2, command.settings.nodes)} hostname")
            print(f"  {cluster.command('status')}\n  {cluster.command('down')}")
        case Down():
            cluster.down()
            print(f"down: {cluster.folder}")
        case Status():
            cluster.require_up()
            print_status(cluster.nodes(), cluster.jobs())
        case Fail():
            cluster.fail(command.node)
            heal = cluster.command("heal", command.node)
            print(f"{command.node} is dead; Slurm notices within half a minute. It comes back with: {heal}")
        case Heal():
            cluster.heal(command.node)
            print(f"{command.node} is ready")
        case Drain():
            cluster.drain(command.node)
            print(f"{command.node} takes no more jobs; it comes back with: {cluster.command('heal', command.node)}")


if __name__ == "__main__":
    run(main)
