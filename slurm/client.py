"""Run Slurm's commands: as argument lists, with a time limit, and again if the controller does not answer."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping

from slurm.command_environment import without_options
from slurm.errors import NoAnswer, SlurmError

# What the commands print while slurmctld is down, busy or starting: worth another try.
NO_ANSWER_MESSAGES = (
    "unable to contact slurm controller",
    "socket timed out",
    "connection refused",
    "connection timed out",
    "transport endpoint",
    "slurmctld is currently in standby",
    "temporarily unavailable",
    "zero bytes were transmitted",
)
# Times as seconds since 1970, whatever the time zone and the user's settings; messages in English.
FIXED_ENVIRONMENT = {"SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}


def run_slurm(
    *command: str, environment: Mapping[str, str] | None = None, timeout_s: float = 30, tries: int = 4
) -> str:
    """Run a Slurm command and return what it printed.

    Args:
        command: program and arguments.
        environment: variables to set besides those of this process.
        timeout_s: of one try.
        tries: in all; the pause before each grows by a second.

    Raises:
        SlurmError: it failed.
        NoAnswer: the controller did not answer any try.
    """
    said = ""
    for attempt in range(1, tries + 1):
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",  # names and comments of jobs may be any bytes
                timeout=timeout_s,
                # FIXED_ENVIRONMENT last: nothing that the shell has set may change how times and messages are written.
                env={**without_options(os.environ), **(environment or {}), **FIXED_ENVIRONMENT},
                check=False,
            )
        except subprocess.TimeoutExpired:
            said, again = f"no answer within {timeout_s:g} s", True
        except OSError as error:  # such as a missing program: another try would not help
            said, again = error.strerror or str(error), False
        else:
            if done.returncode == 0:
                return done.stdout
            said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
            again = any(sign in said.lower() for sign in NO_ANSWER_MESSAGES)
        if not again:
            raise SlurmError(f"{' '.join(command)}: {said}")
        if attempt < tries:
            time.sleep(attempt)
    raise NoAnswer(f"{' '.join(command)}: {said}")
