"""Evaluations come to W&B late, on an axis of their own, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.test_tracking import environment, finish, ids, run, server, sync
from tests.wandb_server import WandbServer
from trainer.runs.journal import encode_row
from trainer.runs.run_folder import RunFolder
from trainer.tracking.evaluation_rows import AXIS, EvaluationRows

__all__ = ["environment", "run", "server"]  # fixtures

pytestmark = pytest.mark.timeout(120)


def measured(run: RunFolder, images_seen: int) -> None:
    """Add an evaluation."""
    figure = {"value": images_seen / 10, "low": "NaN", "high": 1.0}
    row = {"images_seen": images_seen, "seed_set": "select", "figures": {"fid_5k/x": figure}}
    with run.evaluations.open("ab") as file:
        file.write(encode_row(row))


def arrived(server: WandbServer, run: RunFolder) -> list[tuple[int, int, float]]:
    """Return W&B's step, the axis and the figure of each evaluation that W&B has."""
    rows = [row for row in server.history(ids(run)[0]) if AXIS in row]
    return [(row["images_seen"], row[AXIS], row["evaluation/select/fid_5k/x"]) for row in rows]


def test_they_ride_on_later_rows_and_none_comes_twice(server: WandbServer, run: RunFolder) -> None:
    for images_seen in (50, 100):
        measured(run, images_seen)
    finish(run, stop=200)
    assert arrived(server, run) == [(10, 50, 5.0), (20, 100, 10.0)]
    for images_seen in (150, 200, 250):
        measured(run, images_seen)
    finish(run, start=200, stop=220)
    expected = [(10, 50, 5.0), (20, 100, 10.0), (210, 150, 15.0), (220, 200, 20.0), (221, 250, 25.0)]
    assert arrived(server, run) == expected, "the last of them found no row to ride on"
    measured(run, 300)
    for _ in range(2):
        done = sync(run)
        assert done.returncode == 0, done.stderr
    assert arrived(server, run) == [*expected, (222, 300, 30.0)]
    steps = [row["_step"] for row in server.history(ids(run)[0])]
    assert steps == sorted(set(steps))


def taken(run: RunFolder, id: str, last: int, *rows: int) -> list[Any]:
    """Return which evaluations these rows take along, in a process that begins after row `last`."""
    riders = EvaluationRows(run, id, last)
    found = [riders.take(images_seen).get(AXIS) for images_seen in rows]
    riders.close()
    return found


def test_what_a_kill_kept_from_the_server_is_sent_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.wandb.mkdir()
    for images_seen in (1, 2, 3):
        measured(run, images_seen)
    assert taken(run, "a", -1, 10, 20) == [1, 2]
    assert taken(run, "a", 20, 30, 40) == [3, None]
    assert taken(run, "a", 15, 20, 30) == [2, 3], "row 20 and what followed were lost"
    assert taken(run, "b", -1, 40) == [None], "another W&B run of the same history has only what is new"
    measured(run, 4)
    assert taken(run, "b", 40, 50) == [4]
