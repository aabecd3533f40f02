"""What can go wrong with Slurm: one class each for the user's mistakes, failed commands, and a silent controller."""

from __future__ import annotations


class SlurmUsageError(Exception):
    """A user's mistake: the message says what is wrong and what to do. Exit code 2, no traceback."""


class SlurmError(Exception):
    """A Slurm command failed: the message says which one, and what it printed."""


class NoAnswer(SlurmError):
    """The controller did not answer several tries: it may be back in a while, so waiting is worthwhile."""
