"""A copy of the code that a job runs, so that what is edited later does not leak into its next attempt."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder

HOME = Path(__file__).parents[2]  # of the packages: a checkout, or site-packages
PACKAGES = ("launcher", "trainer", "shards", "slurm", "command_line")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.zip")  # the bundled pictures: a job reads shards


def take_snapshot(run: RunFolder, submission: int) -> Path:
    """Copy the packages into the run folder, for one submission of it; return the copy.

    Raises:
        Refused: it cannot be written.
    """
    return copy_code(run.code / f"{submission:04d}")


def copy_code(target: Path) -> Path:
    """Copy the packages into a folder, and note the commit and what differs from it; return its full path.

    Raises:
        Refused: it cannot be written.
    """
    try:
        # Left by a submission that Slurm did not take: the next one has the same number.
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for package in PACKAGES:
            shutil.copytree(HOME / package, target / package, ignore=LEFT_OUT)
        commit, changes = ask_git("rev-parse", "HEAD"), ask_git("diff", "HEAD")
        origin = {"from": str(HOME), "version": version("lienzo"), "commit": commit, "changed": bool(changes)}
        (target / "origin.json").write_text(json.dumps(origin))
        # The commit alone would not tell what has run.
        if changes:
            (target / "changes.diff").write_text(changes)
    except OSError as error:
        raise Refused(f"the code cannot be copied into {target}: {error.strerror}") from error
    return target.resolve()


def ask_git(*arguments: str) -> str | None:
    """Ask git about the checkout; None where this is none."""
    if not (HOME / ".git").exists():  # installed, perhaps below somebody's own repository: that is not our code
        return None
    try:
        done = subprocess.run(["git", "-C", str(HOME), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # git is not installed here
        return None
    return done.stdout.strip() if done.returncode == 0 else None
