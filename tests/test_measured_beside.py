"""What is measured beside training: the same bits as in line, on any ranks, after any interruption, and no waiting."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.test_collapse_runs import LOOKS, events, go, start, state_of
from trainer.config.config import Config
from trainer.config.recipes import RECIPES
from trainer.core.fields import Refused
from trainer.core.stopping import Outcome
from trainer.runs import journal
from trainer.training.background_evaluation import evaluation_place
from trainer.training.measurements import measures_beside, measuring_device

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
BESIDE = ("--measure-on", "cpu")
SAMPLES = ("--sample-every-images", "96")
RARELY = ("--collapse.every-images", "64", "--anchor-every-images", "64", "--checkpoint-every-images", "32")
ROLL_BACK = (*RARELY, "--collapse.policy", "roll-back", "--total-images", "416")


def pictures(folder: Path) -> dict[str, bytes]:
    """Return the pictures of a run."""
    return {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}


def images_seen(folder: Path, name: str) -> int:
    """Return how far the rows of a journal are."""
    found: int = journal.last_row(folder / name).get("images_seen", 0)
    return found


def test_rows_states_and_pictures_are_those_of_a_run_in_line(shards32: Path, tmp_path: Path) -> None:
    settings = (*LOOKS, *SAMPLES)
    in_line = go(tmp_path / "in-line", shards32, 1, *settings, mistake=None)
    assert b"swd_512" in in_line[1]
    for size in (1, 2):
        folder = tmp_path / str(size)
        assert go(folder, shards32, size, *settings, *BESIDE, mistake=None) == in_line
        assert pictures(folder) == pictures(tmp_path / "in-line")
    found = [row for row in journal.read_rows(folder / "system.jsonl") if "stall/collapse" in row]
    assert found
    assert all(row[f"stall/{cause}"] >= 0 for row in found for cause in ("samples", "checkpoint", "evaluation"))


def test_a_rollback_that_is_known_late_leads_to_the_same_bits(shards32: Path, tmp_path: Path) -> None:
    """The collapse is met at 256, and known at 320 or, when killed in between, after the next start."""
    in_line = go(tmp_path / "in-line", shards32, 1, *ROLL_BACK, mistake="collapse_once")
    (made,) = events(tmp_path / "in-line", "rollback")
    assert (made["from"], made["to"]) == (256, 128)
    late = tmp_path / "late"
    assert go(late, shards32, 2, *ROLL_BACK, *BESIDE, mistake="collapse_beside") == in_line
    assert pictures(late) == pictures(tmp_path / "in-line")
    assert [(row["from"], row["to"]) for row in events(late, "rollback")] == [(256, 128)]
    killed = tmp_path / "killed"
    assert start(killed, shards32, 1, *ROLL_BACK, *BESIDE, mistake="collapse_then_killed").wait() == [-signal.SIGKILL]
    assert go(killed, shards32, 2, *ROLL_BACK, *BESIDE, mistake="collapse_beside") == in_line
    assert pictures(killed) == pictures(tmp_path / "in-line")


def test_a_collapse_that_is_not_known_yet_comes_before_the_nan_after_it(shards32: Path, tmp_path: Path) -> None:
    in_line = go(tmp_path / "in-line", shards32, 1, *ROLL_BACK, mistake="collapse_then_nan")
    assert go(tmp_path / "late", shards32, 1, *ROLL_BACK, *BESIDE, mistake="collapse_then_nan") == in_line
    assert [row["why"] for row in events(tmp_path / "late", "rollback")] == ["collapsed"]


def test_the_policy_stop_ends_where_it_would_in_line(shards32: Path, tmp_path: Path) -> None:
    stop = (*RARELY, "--collapse.policy", "stop")
    refused = Outcome.REFUSED
    in_line = go(tmp_path / "in-line", shards32, 1, *stop, mistake="collapse_once", code=refused)
    beside = go(tmp_path / "beside", shards32, 2, *stop, *BESIDE, mistake="collapse_beside", code=refused)
    assert beside == in_line


def test_training_goes_on_while_it_is_measured_and_rows_wait_in_order(shards32: Path, tmp_path: Path) -> None:
    rarely = ("--checkpoint-every-images", "1024", "--anchor-every-images", "1024")
    settings = (*rarely, "--sample-every-images", "128", "--collapse.every-images", "128", "--total-images", "384")
    in_line = go(tmp_path / "in-line", shards32, 1, *settings, mistake=None)
    folder = tmp_path / "beside"
    ranks = start(folder, shards32, 1, *settings, *BESIDE, mistake="measuring_held")
    deadline = time.monotonic() + 60
    while images_seen(folder, "system.jsonl") < 224:
        assert time.monotonic() < deadline, Path(f"{folder}.log").read_text()
        time.sleep(0.02)
    assert images_seen(folder, "metrics.jsonl") == 96  # the sample grid of 128 is not there
    (folder / "go").touch()
    assert ranks.wait() == [0]
    assert "the grid of 128 images: swd_512 " in Path(f"{folder}.log").read_text()
    assert (state_of(folder), (folder / "metrics.jsonl").read_bytes()) == in_line


def test_a_process_that_ends_is_told_and_nothing_is_lost(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ranks = start(folder, shards32, 2, *LOOKS, *BESIDE, "--total-images", "320", mistake="measuring_dies")
    assert ranks.wait() == [Outcome.FAILED] * 2
    said = Path(f"{folder}.log").read_text()
    assert "the process that measures the generator has ended (7): see " in said
    assert "Traceback" not in said
    assert not (folder / "lease.json").exists()
    in_line = go(tmp_path / "in-line", shards32, 1, *LOOKS, mistake=None)
    assert go(folder, shards32, 1, *LOOKS, *BESIDE, mistake=None) == in_line


def test_where_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    small, large = RECIPES["dcgan-64"].config, RECIPES["stylegan2-256"].config
    assert not measures_beside(small, CPU)
    assert measures_beside(small, GPU)
    assert (measuring_device(small, GPU), measuring_device(large, GPU)) == (CPU, GPU)


@pytest.mark.parametrize(
    ("asked", "visible", "beside", "device", "evaluates_on"),
    [
        ("in-line", None, False, None, ""),
        ("cpu", None, True, "cpu", ""),
        ("cuda:1", None, True, "cuda:1", "1"),
        ("cuda:1", "4,6", True, "cuda:1", "6"),
        ("cuda", "4,6", True, "cuda", "4"),
        ("auto", "4,6", True, "cpu", ""),
    ],
)
def test_a_place_is_named(
    asked: str,
    visible: str | None,
    beside: bool,
    device: str | None,
    evaluates_on: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    config = Config(measure_on=asked)
    config.check()
    assert measures_beside(config, GPU) == beside
    assert evaluation_place(config, GPU).gpus == evaluates_on
    assert evaluation_place(config, GPU).processes == (1 if evaluates_on else 4)
    assert evaluation_place(config, CPU).processes == 1
    if device:
        assert measuring_device(config, GPU) == torch.device(device)


def test_a_place_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="measure_on must be auto, in-line, cpu or cuda:N, but is 'gpu'"):
        Config(measure_on="gpu").check()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(Refused, match="rank 0 sees 2 GPUs; name one of them, or --measure-on cpu"):
        measuring_device(Config(measure_on="cuda:2"), GPU)
