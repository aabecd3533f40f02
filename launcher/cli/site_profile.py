"""A site profile, written by asking the cluster."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from command_line.options import attribute_docstrings
from launcher.jobs import checks
from launcher.jobs.preparation import time_limit
from slurm import control
from slurm import profile as profiles
from slurm.client import run_slurm
from slurm.profile import Profile
from slurm.records import Partition
from trainer.core.advice import command
from trainer.core.fields import Refused

HEAD = """\
# What is particular to this cluster, as it was asked. Use it with `{submit}`, or
# with the line `profile = {quoted}` in lienzo.toml; the command line wins over it. What is commented out has the value
# that is shown anyway.
#
# Partitions here:
{partitions}
"""


def write_profile(path: Path) -> None:
    """Write a profile of the cluster that is here.

    Raises:
        Refused: there is none, it does not answer, or the file exists or cannot be written.
    """
    if path.suffix != ".toml":
        raise Refused(f"--profile {path}: a profile's name ends in .toml")
    if path.exists():
        raise Refused(f"{path} exists already: edit it, or remove it first")
    try:
        if control.find_cluster() is None:
            raise Refused("a profile tells of a Slurm cluster, and there is none here")
        known = control.list_partitions()
    except control.SlurmError as error:
        raise Refused(f"the cluster cannot be asked: {error}") from error
    content = profile_text(path, known, default_account())
    try:
        with path.open("x") as file:
            file.write(content)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
    # What cannot be read is better found now than at the first submission.
    profiles.load_profile(str(path))


def profile_text(path: Path, known: Sequence[Partition], account: str) -> str:
    """Return a profile of the default partition: each setting with its meaning, and what the cluster says of it."""
    where = checks.choose_partition("", known)
    values: dict[str, Any] = {"partition": where.name, "time": slurm_time(time_limit(None, "", where))}
    values |= {"account": account} if account else {}
    values |= {"gpus_per_node": where.gpus_per_node} if where.gpus_per_node else {}
    notes = {
        "account": "" if account else "the cluster's accounting does not tell yours",
        "time": f"the partition gives at most {slurm_time(where.max_time_min)}" if where.max_time_min else "",
        "gpus_per_node": where.gres_per_node,
        "memory_gb": f"its nodes have {where.memory_mb_per_node // 1024}",
        "warn_s": f"a preempted job gets {where.grace_s} s ({where.preempt_mode})" if where.preemptible else "",
    }
    submit, partitions = command("launcher", "submit", "--profile", path), "\n".join(map(describe_partition, known))
    lines = [HEAD.format(submit=submit, quoted=json.dumps(str(path)), partitions=partitions)]
    for name, meaning, default in profile_settings():
        value = f"{name} = {json.dumps(values.get(name, default))}"  # JSON's texts, numbers and lists are TOML's
        note = f"  # {notes[name]}" if notes.get(name) else ""
        lines += [f"# {meaning}", f"{'' if name in values else '# '}{value}{note}\n"]
    return "\n".join(lines)


def profile_settings() -> Iterator[tuple[str, str, Any]]:
    """The settings of a profile, each with its docstring and its default."""
    meanings = attribute_docstrings(Profile)
    for setting in fields(Profile):
        yield setting.name, meanings[setting.name], setting.default


def default_account() -> str:
    """Return the account that the cluster's accounting has for this user; empty where it has none."""
    try:
        said = run_slurm(
            *("sacctmgr", "--noheader", "--parsable2", "show", "user", getpass.getuser(), "format=DefaultAccount"),
            # The account is a convenience, and many clusters have no accounting to ask.
            tries=1,
        )
    except control.SlurmError:
        return ""
    return said.strip().partition("\n")[0]


def describe_partition(where: Partition) -> str:
    """Return a partition as a comment."""
    gpus = f", {where.gpus_per_node} GPUs" if where.gpus_per_node else ""
    limit = f", at most {slurm_time(where.max_time_min)}" if where.max_time_min else ""
    default = " (default)" if where.default else ""
    return (
        f"#   {where.name}{default}: {where.total_nodes} nodes with {where.cores_per_node} CPUs{gpus} and "
        f"{where.memory_mb_per_node / 1024:.0f} GB each{limit}"
    )


def slurm_time(minutes: int) -> str:
    """Return minutes as Slurm writes them: days-hours:minutes:seconds."""
    return f"{minutes // 1440}-{minutes // 60 % 24:02d}:{minutes % 60:02d}:00"
