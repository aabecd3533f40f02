"""What is made with a trained generator, besides samples and films of ways: the commands and what runs each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.commands.edit import Edit, run_edit
from trainer.commands.nearest import Nearest, run_nearest
from trainer.commands.project import Project, run_project
from trainer.commands.seeds import Seeds, run_seeds
from trainer.commands.stylemix import Stylemix, run_stylemix
from trainer.core.stopping import Outcome

MAKING: dict[type, Callable[[Any], Outcome]] = {
    Seeds: run_seeds,
    Edit: run_edit,
    Stylemix: run_stylemix,
    Project: run_project,
    Nearest: run_nearest,
}
