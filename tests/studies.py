"""Studies whose runs are only written down: a checkpoint's name and a file of figures are all that a plan asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launcher.jobs.resource_request import ResourceRequest
from launcher.study.folder import StudyFolder
from launcher.study.plan import PACE_ROWS, PACE_STEPS, Cost, StudyPlan, StudyTask
from launcher.study.settings_file import parse_study
from tests.made_runs import MadeRun
from trainer.runs.journal import encode_row

TOML: dict[str, Any] = {
    "data": "shards",
    "seeds": 2,
    "budget": {"images": 1_000},
    "arms": {"a": {"recipe": "dcgan-32"}, "b": {"recipe": "dcgan-32"}, "c": {"recipe": "dcgan-32"}},
}
COSTS = {"a": Cost(1e6, 32), "b": Cost(2e6, 32), "c": Cost(4e6, 64)}


def plan(folder: Path, **changes: Any) -> StudyPlan:
    """Return a study of three arms in a folder."""
    return StudyPlan(parse_study(TOML | changes, "study.toml", "made"), StudyFolder(folder), COSTS, ResourceRequest())


def score(made: StudyPlan, task: StudyTask, value: float | None, floor: float = 1.0) -> None:
    """Train a task's run so far, and measure it; None: the figure that decides could not be computed."""
    run = MadeRun(task.run.path) if not task.run.path.exists() else None
    if run:
        run.steps((task.images, 4.0, 50.0))
    (task.run.checkpoints / f"{task.images:012d}-r00").mkdir(parents=True, exist_ok=True)
    target = made.target(task)
    assert target
    figure: dict[str, object] = {
        "better": "lower",
        "value": value,
        "low": 0.5,
        "high": "Infinity",
        "count": 500,
        "floor": {"value": floor},
    }
    found: dict[str, object] = {"fid_infinity_500/vgg": figure | {"value": 77.0}}
    found |= {"fid_500/vgg": figure} if value is not None else {}
    target.score(task.run).write_text(json.dumps({"extractor": "vgg", "figures": found}))


def pace(made: StudyPlan, arm: str, images_per_s: float, *starts: int) -> None:
    """Let an arm's short run tell its speed, in starts of so many rows; first rows are late: first steps are slow."""
    run, each, images = made.folder.pace(arm), PACE_STEPS // PACE_ROWS * made.costs[arm].step_images, 0
    run.path.mkdir(parents=True, exist_ok=True)
    for start, rows in enumerate(starts or (PACE_ROWS,)):
        for number in range(rows):
            images += each
            elapsed_s = 60 + number * each / images_per_s
            row = {"images_seen": images, "elapsed_s": elapsed_s, "time": 1_000 * start + elapsed_s}
            with run.system.open("ab") as file:
                file.write(encode_row(row))
