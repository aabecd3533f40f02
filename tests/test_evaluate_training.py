"""Evaluation beside a training: which checkpoints, what it costs, what stays."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import train
from trainer.config.config import Config
from trainer.config.groups import CheckpointSettings, MetricsSettings, TrackingSettings
from trainer.core.fields import Refused
from trainer.evaluation.best_record import BestCheckpoint
from trainer.launch.local_processes import WATCHED
from trainer.runs import journal
from trainer.runs.checkpoint import find_checkpoints
from trainer.runs.checkpoint_writer import Checkpoints
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tracker import Tracker
from trainer.training.background_evaluation import EvaluationPlace, Evaluations


def test_a_training_evaluates_its_checkpoints_and_keeps_the_best(shards32: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    watched = ("--metrics.every-images", "64", "--metrics.names", "fid", "--metrics.num-samples", "20")
    often = ("--checkpoint-every-images", "64", "--checkpoint.keep-last", "1", "--total-images", "192")
    train(run.path, shards32, *watched, *often)
    events = list(journal.read_rows(run.events))
    done = [event for event in events if event["kind"] == "evaluation"]
    skipped = [event for event in events if event["kind"] == "evaluation skipped"]
    assert done, run.evaluation_log.read_text()
    assert len(done) + len(skipped) == 3, "each checkpoint from 64 on: measured, or passed over for one that was"
    assert all(0 < event["cpu_share"] <= 1 and event["exit_code"] == 0 for event in done)
    rows = list(journal.read_rows(run.evaluations))
    assert {row["checkpoint"] for row in rows} == {event["checkpoint"] for event in done}
    assert {row["seed_set"] for row in rows} == {"select"}
    best = BestCheckpoint.of(run)
    assert best
    assert best.checkpoint in {checkpoint.path.name for checkpoint in find_checkpoints(run.checkpoints)}


def made_checkpoint(run: RunFolder, images_seen: int, rollbacks: int = 0) -> str:
    """Add a checkpoint by its name alone."""
    path = run.checkpoints / f"{images_seen:012d}-r{rollbacks:02d}"
    path.mkdir(parents=True)
    return path.name


def evaluations_of(run: RunFolder) -> Evaluations:
    """Return the evaluations of a run, one for each 100 pictures."""
    tracker = Tracker(run, TrackingSettings("disabled"))
    return Evaluations(run, MetricsSettings(every_images=100), tracker, EvaluationPlace())


@pytest.fixture
def evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluations:
    """Those of a run that has none, whose child only sleeps."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    made = Evaluations(
        run, MetricsSettings(every_images=100), Tracker(run, TrackingSettings("disabled")), EvaluationPlace()
    )
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 1000\n")
    sleeper.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    return made


def kinds(run: RunFolder) -> list[str]:
    """Return what happened."""
    return [event["kind"] for event in journal.read_rows(run.events)]


def test_one_at_a_time_at_each_multiple_that_is_passed(
    evaluations: Evaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = evaluations.run
    made_checkpoint(run, 96)
    evaluations.saved()
    assert evaluations.kept() == {""}
    first = made_checkpoint(run, 128)
    evaluations.saved()
    evaluations.collect()
    assert evaluations.kept() >= {first}, "it still runs"
    made_checkpoint(run, 192)
    evaluations.saved()
    assert kinds(run) == []
    made_checkpoint(run, 224)
    evaluations.saved()
    assert kinds(run) == ["evaluation skipped"]
    evaluations.close(finished=False)
    assert kinds(run) == ["evaluation skipped", "evaluation failed"]
    assert evaluations.kept() == {""}


def test_a_rollback_begins_anew(evaluations: Evaluations, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nothing would be evaluated until the run is where it was before."""
    started: list[str] = []
    monkeypatch.setattr(evaluations, "start", started.append)
    names = []
    for images, rollbacks in [(320, 0), (112, 1), (128, 1), (224, 1)]:
        names.append(made_checkpoint(evaluations.run, images, rollbacks))
        evaluations.saved()
    assert started == [names[0], names[1], names[3]]


def test_a_resumed_run_goes_on_after_the_last_evaluation(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.evaluations.write_bytes(
        b"".join(
            journal.encode_row({"seed_set": seed_set, "checkpoint": name, "figures": {}})
            for name, seed_set in [
                ("000000000528-r00", "select"),
                ("000000000128-r01", "select"),
                ("000000000512-r01", "report"),
            ]
        )
    )
    again = Evaluations(
        run, MetricsSettings(every_images=100), Tracker(run, TrackingSettings("disabled")), EvaluationPlace()
    )
    assert again.reached == {0: 528, 1: 128}


def test_pruning_spares_what_is_evaluated(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    names = [made_checkpoint(run, images) for images in (100, 200, 300, 400)]
    saver = Checkpoints(run.checkpoints, CheckpointSettings(keep_last=1), lambda: None)
    saver.kept = lambda: {names[1]}
    for checkpoint in find_checkpoints(run.checkpoints):
        files = {}
        for name in ("state.safetensors", "state.json"):
            (checkpoint.path / name).write_bytes(b"")
            files[name] = {"bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
        (checkpoint.path / "manifest.json").write_text(json.dumps({"files": files}))
    saver.prune()
    saver.close()
    assert [checkpoint.path.name for checkpoint in find_checkpoints(run.checkpoints)] == [names[3], names[1]]


def test_the_child_is_no_rank_of_the_training(evaluations: Evaluations, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says itself what its environment is."""
    for variable in ("RANK", "LOCAL_RANK", "TORCHELASTIC_USE_AGENT_STORE", "ACCELERATE_MIXED_PRECISION", "OUR_OWN"):
        monkeypatch.setenv(variable, "1")
    program = evaluations.run.path / "program"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    evaluations.start("name")
    evaluations.collect(wait=True)
    variables = {line.partition("=")[0] for line in evaluations.run.evaluation_log.read_text().splitlines()}
    assert variables >= {"PATH", "OUR_OWN", WATCHED}
    assert not [variable for variable in variables if variable.startswith(("TORCHELASTIC", "ACCELERATE"))]
    assert not variables & {"RANK", "LOCAL_RANK"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_images": -1}, "metrics.every_images must not be negative"),
        ({"num_samples": 1}, "metrics.num_samples must be at least 2"),
        ({"names": "fid,kidd"}, "metrics.names: there is no metric 'kidd'"),
        ({"every_images": 1, "names": "kid,prdc"}, "keep_best is 'fid', and metrics.names give kid, precision"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(Refused, match=message):
        Config(metrics=MetricsSettings(**settings)).check()  # type: ignore[arg-type]
