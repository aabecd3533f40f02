"""Pictures that only a generator can make: the trainer makes them, in a process of its own, and they stay with the run.

RUN/report/CHECKPOINT/nearest.png        generated pictures beside the nearest ones of the data
RUN/report/CHECKPOINT/nearest.json       which these are
RUN/report/CHECKPOINT/interpolation.webp   the way from picture to picture
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder

SHEET, FILM = "nearest.png", "interpolation.webp"
NEAREST = ("--seeds", "0-7", "--num", "5", "--force")
INTERPOLATE = ("--seeds", "0-3", "--steps", "10", "--grid", "3")


def made_folder(run: RunFolder, name: str) -> Path | None:
    """Return the folder of the newest checkpoint of which a picture of this name was made; None: of none."""
    made = sorted(path.parent for path in run.made_pictures.glob(f"*/{name}"))
    return made[-1] if made else None


def make_pictures(run: RunFolder) -> None:
    """Make the pictures of a run's newest checkpoint that are not there.

    Raises:
        Refused: there is no checkpoint, or the trainer refuses.
    """
    newest = run.newest_checkpoint()
    if newest is None:
        raise Refused(f"{run.path} has no checkpoint that could make pictures: leave --pictures out")
    folder, checkpoint = run.made_pictures / newest[1].name, ("--checkpoint", newest[1].name)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SHEET).exists():
        ask_trainer("nearest", str(run.path), "--out", str(folder), *NEAREST, *checkpoint)
    if not (folder / FILM).exists():
        ask_trainer("interpolate", str(run.path), "--out", str(folder / FILM), *INTERPOLATE, *checkpoint)


def ask_trainer(*words: str) -> None:
    """Run a command of the trainer's.

    Raises:
        Refused: it does not succeed; with the last thing that it said.
    """
    done = subprocess.run([sys.executable, "-m", "trainer", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1].removeprefix("refused: ")
        raise Refused(f"trainer {words[0]} makes no pictures of {words[1]}: {said}; or leave --pictures out")
