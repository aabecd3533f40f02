"""Starts the doctor's probe: one task on each of some nodes, or one process here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.doctor.measured import Probe, ProbeMessages
from launcher.doctor.plan import ProbePlan
from launcher.jobs import code_snapshot
from slurm import control
from trainer.runs.run_folder import RunFolder

STARTED = re.compile(r"\d+: ")  # a task's own line
FAILED = re.compile(r"error: (\S+): tasks? ([\d,-]+): (.*)")


@dataclass(frozen=True)
class Examined:
    """What came of it."""

    probes: list[Probe]
    missing: dict[str, str]
    """Nodes or tasks that did not answer, and the last that they said."""
    not_started: str = ""
    """Why Slurm did not run the probe at all."""


def probe_nodes(plan: ProbePlan) -> Examined:
    """Probe the nodes, and wait for their answers.

    Raises:
        SlurmError: the cluster does not tell its nodes' addresses.
        KeyboardInterrupt: the user does not wait; the job is ended.
    """
    addresses = {node.name: node.address for node in control.list_nodes()} if plan.where else {}
    values = {"size": plan.size, "slurm": plan.where is not None, "addresses": addresses, "gpus": plan.gpus}
    (plan.folder / "plan.json").write_text(json.dumps(values))
    # As for a job: whether nodes can run a copy on this file system is part of what is tried.
    code = code_snapshot.take_snapshot(RunFolder(plan.folder), 1)
    child = subprocess.Popen(
        plan.command(),
        # srun would pass on to the tasks what the user types.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=code,
        env=plan.environment(code),
    )
    said = read_output(child)
    probes = ProbeMessages(plan.folder, 0, plan.size).read_probes()
    # No task has spoken and srun names none that failed: Slurm has not run the probe, and says why.
    if plan.where and not probes and not any(STARTED.match(line) or FAILED.search(line) for line in said):
        why = next((line for line in said if "rror" in line), said[0] if said else f"exit code {child.returncode}")
        return Examined([], {}, why)
    return Examined(probes, find_silent_tasks(said, plan.size, {probe.rank for probe in probes}))


def read_output(child: subprocess.Popen[str]) -> list[str]:
    """Return the lines that the probes and srun say, and show how it is with the queue.

    Raises:
        KeyboardInterrupt: the user does not wait; the job is ended.
    """
    lines = []
    assert child.stdout
    try:
        with child.stdout:
            for line in child.stdout:
                # "queued and waiting for resources": else a user would not know why nothing happens.
                if line.startswith("srun: job"):
                    print(line, end="", file=sys.stderr)
                lines += [line.strip()] if line.strip() else []
        child.wait()
    except KeyboardInterrupt:
        child.terminate()  # srun ends the job
        child.wait(timeout=30)
        raise
    return lines


def find_silent_tasks(lines: Sequence[str], size: int, answered: set[int]) -> dict[str, str]:
    """Return the tasks that did not answer, by their nodes where srun names them, and the last that they said."""
    names: dict[int, str] = {}
    for match in filter(None, map(FAILED.search, lines)):
        for part in match[2].split(","):
            first, _, last = part.partition("-")
            # Only srun knows which node a task is on that has never answered.
            names |= {rank: f"{match[1]} (task {rank})" for rank in range(int(first), int(last or first) + 1)}
    missing = {}
    for rank in sorted({*range(size)} - answered):
        own = [line.partition(":")[2].strip() for line in lines if re.match(rf"{rank}:", line)]
        # A task that never started has no lines of its own; then srun's may tell.
        missing[names.get(rank, f"task {rank}")] = last_words(own) or last_words(lines) or "it said nothing"
    return missing


def last_words(lines: Sequence[str]) -> str:
    """Return the line that most likely says what is wrong."""
    errors = [line for line in lines if "rror" in line]
    return next(reversed(errors or list(lines)), "")
